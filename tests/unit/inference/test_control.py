"""Cancellations reach the pump, whatever else lies on `control`."""

from __future__ import annotations

import datetime as dt

from penstock.codec import encode
from penstock.records import Partition, Record
from penstock.v1 import admitted_pb2, control_pb2
from penstock_inference.pump.control import CancelledIds, Commands

NOW = dt.datetime(2026, 11, 21, 12, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
MINUTE = dt.timedelta(minutes=1)


def note(ids: CancelledIds, request_id: str, *, until: dt.datetime = NOW + DAY) -> bool:
    return ids.note(request_id, "acme", at=NOW, until=until, now=NOW)


def test_a_cancellation_covers_its_tenants_request_again_and_again() -> None:
    ids = CancelledIds()
    assert note(ids, "r")
    assert [ids.covers("r", "acme", NOW - MINUTE) for _ in range(2)] == [True, True]
    assert not ids.covers("r", "rival", NOW - MINUTE)
    assert not ids.covers("other", "acme", NOW - MINUTE)


def test_another_tenants_cancellation_does_not_hide_the_right_one() -> None:
    ids = CancelledIds()
    note(ids, "r")
    ids.note("r", "rival", NOW, NOW + DAY, NOW)
    assert ids.covers("r", "acme", NOW)


def test_a_key_that_is_admitted_anew_later_is_not_covered() -> None:
    ids = CancelledIds()
    note(ids, "r")
    assert ids.covers("r", "acme", NOW + MINUTE)  # clocks differ
    assert not ids.covers("r", "acme", NOW + 60 * MINUTE)


def test_what_is_past_its_deadline_is_not_kept() -> None:
    ids = CancelledIds()
    assert not note(ids, "late", until=NOW)
    note(ids, "short", until=NOW + MINUTE)
    ids.note("next", "acme", NOW + 2 * MINUTE, NOW + DAY, NOW + 2 * MINUTE)
    assert len(ids) == 1
    assert not ids.covers("short", "acme", NOW)


def test_the_oldest_go_where_there_are_too_many() -> None:
    ids = CancelledIds(max_ids=2)
    for name in "abc":
        note(ids, name)
    assert [ids.covers(name, "acme", NOW) for name in "abc"] == [False, True, True]


class Heard:
    def __init__(self) -> None:
        self.cancelled: list[tuple[str, str]] = []
        self.resumed: list[control_pb2.Resume] = []
        self.ids = CancelledIds()
        self.commands = Commands(
            self.ids,
            on_cancel=lambda request_id, tenant: self.cancelled.append((request_id, tenant)),
            on_resume=self.resumed.append,
            now=lambda: NOW,
        )

    def take(self, control: control_pb2.Control, written: dt.datetime = NOW) -> None:
        sent = encode(control, topic="penstock.control", key="r", source="test")
        self.commands.take(_record(sent.value, written))


def _record(value: bytes | None, written: dt.datetime = NOW) -> Record:
    stamp = int(written.timestamp() * 1000)
    return Record(Partition("penstock.control", 0), 0, b"r", value, (), stamp)


def cancellation(asked: dt.datetime, deadline: dt.datetime | None = None) -> control_pb2.Control:
    cancel = admitted_pb2.Cancellation(request_id="r", tenant="acme")
    cancel.requested_at.FromDatetime(asked)
    if deadline is not None:
        cancel.deadline.FromDatetime(deadline)
    return control_pb2.Control(cancel=cancel)


def test_a_cancellation_is_noted_before_the_pump_hears_of_it() -> None:
    heard = Heard()
    heard.take(cancellation(NOW))
    assert heard.cancelled == [("r", "acme")]
    assert heard.ids.covers("r", "acme", NOW)


def test_a_cancellation_whose_request_is_past_its_deadline_says_nothing() -> None:
    heard = Heard()
    heard.take(cancellation(NOW - MINUTE, deadline=NOW - MINUTE / 2))
    heard.take(cancellation(NOW - DAY))
    assert (heard.cancelled, len(heard.ids)) == ([], 0)


def test_without_an_instant_the_records_own_counts() -> None:
    heard = Heard()
    heard.take(
        control_pb2.Control(cancel=admitted_pb2.Cancellation(request_id="r", tenant="acme")),
        written=NOW - 10 * MINUTE,
    )
    assert heard.ids.covers("r", "acme", NOW - 9 * MINUTE)
    assert not heard.ids.covers("r", "acme", NOW)


def test_a_resume_is_handed_on_and_what_is_no_command_is_passed_over() -> None:
    heard = Heard()
    heard.take(control_pb2.Control(resume=control_pb2.Resume(group="g", topic="t")))
    heard.take(control_pb2.Control())
    heard.take(control_pb2.Control(cancel={"requested_at": {"seconds": 2**60}}))
    heard.commands.take(_record(b"\xff\xff"))
    heard.commands.take(_record(None))
    assert [resume.group for resume in heard.resumed] == ["g"]
    assert heard.cancelled == []
