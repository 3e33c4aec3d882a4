"""Ended requests are found by their tenant, within a window and within bounds."""

from __future__ import annotations

from penstock.v1 import response_pb2
from penstock_ingest.index import OVERHEAD_BYTES, KnownIds, ResponseIndex


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


def test_an_id_is_claimed_once() -> None:
    known = KnownIds(60)
    assert known.claim("r", "first", 0)
    assert not known.claim("r", "second", 1)
    assert known.claim("r", "first", 2)  # its transaction was undone: it is handled again
    known.confirm("r", 3, 3)
    assert not known.claim("r", "first", 4)
    known.release("r")
    assert "r" in known
    assert known.claim("r", "second", 100)


def test_a_claim_whose_record_was_not_written_is_given_up() -> None:
    known = KnownIds(60)
    assert known.claim("r", "first", 0)
    known.release("r")
    assert known.claim("r", "second", 1)


def test_the_oldest_ids_go_first() -> None:
    known = KnownIds(60, max_ids=2)
    for n, name in enumerate("abc"):
        known.confirm(name, n, n)
    assert [name in known for name in "abc"] == [False, True, True]
