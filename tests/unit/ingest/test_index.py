"""Ended requests are found by their tenant, within a window and within bounds."""

from __future__ import annotations

import pytest

from penstock.v1 import response_pb2
from penstock_ingest.waiting.index import OVERHEAD_BYTES, KnownIds, ResponseIndex


def response(name: str, tenant: str = "a", text: str = "") -> response_pb2.GenerateResponse:
    return response_pb2.GenerateResponse(request_id=name, tenant=tenant, text=text)


def test_another_tenants_response_is_not_found() -> None:
    index = ResponseIndex(60, 10_000)
    index.add(response("r"), b"key", 0, 0)
    found = index.find("r", "a", 10)
    assert found is not None
    assert found.key == b"key"
    assert index.find("r", "b", 10) is None
    assert index.find("s", "a", 10) is None


def test_age_and_bytes_bound_it() -> None:
    index = ResponseIndex(60, 3 * (OVERHEAD_BYTES + 200))
    for n in range(5):
        index.add(response(f"r{n}", text="x" * 180), None, n, n)
    assert [index.find(f"r{n}", "a", 5) is not None for n in range(5)] == [
        False,
        False,
        *[True] * 3,
    ]
    assert index.find("r4", "a", 65) is None
    index.add(response("late"), None, 100, 100)
    assert len(index) == 1


def test_the_first_terminal_response_stands() -> None:
    index = ResponseIndex(60, 10_000)
    index.add(response("r", text="first"), None, 0, 0)
    index.add(response("r", text="second"), None, 1, 1)
    found = index.find("r", "a", 1)
    assert found is not None
    assert found.response.text == "first"


def test_after_the_window_a_name_is_another_requests() -> None:
    index = ResponseIndex(60, 10_000)
    index.add(response("r", text="first"), None, 0, 0)
    index.add(response("r", text="second, a longer one"), None, 61, 61)
    found = index.find("r", "a", 62)
    assert found is not None
    assert found.response.text == "second, a longer one"
    index.add(response("late"), None, 200, 200)
    assert len(index) == 1
    assert index._bytes == OVERHEAD_BYTES + response("late").ByteSize()


def confirm(known: KnownIds, name: str, now_s: float, *, keyed: bool = True) -> None:
    known.confirm(name, "acme", now_s + 600, now_s, keyed=keyed)


def end(known: KnownIds, name: str, now_s: float, *, keyed: bool = True) -> None:
    known.end(name, now_s, now_s, keyed=keyed)


def test_an_id_is_claimed_once() -> None:
    known = KnownIds(60)
    assert known.claim("r", "first", 0)
    assert not known.claim("r", "second", 1)
    assert known.claim("r", "first", 2)  # its transaction was undone: it is handled again
    confirm(known, "r", 3)
    assert not known.claim("r", "first", 4)
    known.release("r")
    assert "r" in known
    end(known, "r", 10)
    assert known.has_ended("r")
    assert not known.claim("r", "second", 69)
    assert known.claim("r", "second", 71)


def test_a_claim_whose_record_was_not_written_is_given_up() -> None:
    known = KnownIds(60)
    assert known.claim("r", "first", 0)
    known.release("r")
    assert known.claim("r", "second", 1)
    assert known.claim("r", "third", 100)  # nobody ever confirmed it


def test_what_has_not_ended_is_kept_however_much_else_has() -> None:
    known = KnownIds(60, max_ended=2)
    confirm(known, "long", 0)
    for n, name in enumerate("abc"):
        confirm(known, name, n)
        end(known, name, n)
    assert [name in known for name in "abc"] == [False, True, True]
    assert not known.claim("long", "x", 600)
    assert not known.claim("long", "x", 659)  # its end may be late
    assert known.claim("long", "x", 800)


def test_of_what_nobody_named_only_what_is_under_way_is_kept() -> None:
    known = KnownIds(60)
    for n in range(10):
        confirm(known, f"r{n}", 0, keyed=False)
        if n:
            end(known, f"r{n}", 1, keyed=False)
    assert len(known) == 1
    confirm(known, "later", 800, keyed=False)
    assert len(known) == 1
    assert known.under_way("r0", "acme") is None


@pytest.mark.parametrize("keyed", [True, False])
def test_an_end_may_be_read_before_the_beginning(keyed: bool) -> None:
    known = KnownIds(60)
    end(known, "r", 0, keyed=keyed)
    confirm(known, "r", 0, keyed=keyed)
    assert known.under_way("r", "acme") is None
    assert known.has_ended("r") == keyed
    assert len(known) == keyed


def test_another_tenants_request_is_not_under_way() -> None:
    known = KnownIds(60)
    confirm(known, "r", 0, keyed=False)
    found = known.under_way("r", "acme")
    assert found is not None
    assert found.deadline_s == 600
    assert known.under_way("r", "rival") is None
    end(known, "r", 1, keyed=False)
    assert known.under_way("r", "acme") is None
