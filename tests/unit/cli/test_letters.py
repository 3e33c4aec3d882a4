"""What is on the shelf of dead letters, and what replaying one writes."""

from __future__ import annotations

import datetime as dt

import pytest

from penstock.cli.letters import Replay, Shelf, Wanted, again_id, as_json, plan
from penstock.cli.run import CliError
from penstock.codec import PROTOBUF, decode
from penstock.errors import InvalidRequest
from penstock.failures import Poisoned
from penstock.kafka.dlq import REPLAYED_FROM, Letter, dead_letter
from penstock.records import Outgoing, Partition, Record
from penstock.v1 import admitted_pb2, common_pb2

PUBLISHED = dt.datetime(2026, 5, 1, 10, 0, tzinfo=dt.UTC)
NOW = dt.datetime(2026, 5, 2, 10, 0, tzinfo=dt.UTC)
MARKER = b"MARKER-of-a-prompt"


def admitted(request_id: str = "req-1", **more: object) -> admitted_pb2.AdmittedRequest:
    made = admitted_pb2.AdmittedRequest(
        request_id=request_id,
        variant="base",
        route_version=3,
        encoding=PROTOBUF,
        reply_partition=2,
        stream=True,
        **more,  # type: ignore[arg-type]
    )
    made.request.prompt = MARKER.decode()
    made.request.tenant = "acme"
    made.request.idempotency_key = "order-7"
    made.request.sampling.seed = 11
    made.published_at.FromDatetime(PUBLISHED)
    made.deadline.FromDatetime(PUBLISHED + dt.timedelta(seconds=45))
    made.request.deadline.CopyFrom(made.deadline)
    return made


def buried(
    topic: str,
    value: bytes | None,
    *,
    at: int = 5,
    headers: tuple[tuple[str, bytes], ...] = (("content-type", b"application/protobuf"),),
    error: Exception | None = None,
    service: str = "inference",
    time_ms: int = 1_777_700_000_000,
    **more: str,
) -> Record:
    original = Record(Partition(topic, 3), 41, b"key", value, headers, 1_777_600_000_000)
    letter = dead_letter(
        original,
        dlq_topic="p.dlq",
        service=service,
        reason="it died",
        error=error,
        attempts=1,
        **more,  # type: ignore[arg-type]
    )
    return Record(Partition("p.dlq", 0), at, letter.key, letter.value, letter.headers, time_ms)


def planned(record: Record, taken: tuple[str, ...] = (), timeout_s: float | None = None) -> Replay:
    return plan(Letter.of(record), prefix="p", taken=taken, now=NOW, timeout_s=timeout_s)


def as_read(written: Outgoing) -> Record:
    return Record(Partition(written.topic, 0), 0, written.key, written.value, written.headers, 0)


@pytest.mark.parametrize("topic", ["p.requests", "p.usage"])
def test_bytes_and_headers_go_back_as_they_were(topic: str) -> None:
    headers = (("content-type", b"text/csv"), ("mine", b"\xff"))
    replay = planned(buried(topic, MARKER, headers=headers))
    written, note = replay.records
    assert (written.topic, written.partition, written.key) == (topic, 3, b"key")
    assert written.value == MARKER
    assert written.headers == (*headers, (REPLAYED_FROM, b"p.dlq/0-5"))
    assert (note.topic, note.value) == ("p.dlq", None)
    assert not any(MARKER in value for each in replay.records for _, value in each.headers)


def test_an_admitted_request_gets_a_new_id_and_a_new_deadline() -> None:
    replay = planned(buried("p.admitted", admitted().SerializeToString()))
    written = replay.records[0]
    made = decode(as_read(written), admitted_pb2.AdmittedRequest)
    assert replay.request_id == made.request_id == "req-1+r1"
    assert made.origin_request_id == "req-1"
    assert made.purpose == common_pb2.PURPOSE_UNSPECIFIED
    assert made.published_at.ToDatetime(dt.UTC) == NOW
    assert made.deadline.ToDatetime(dt.UTC) == NOW + dt.timedelta(seconds=45)
    assert made.request.deadline == made.deadline
    assert not made.HasField("reply_partition")
    assert not made.stream
    assert made.request.idempotency_key == ""
    assert (made.request.prompt, made.request.sampling.seed) == (MARKER.decode(), 11)
    assert (made.variant, made.request.tenant) == ("base", "acme")
    assert (written.topic, written.partition, written.key) == ("p.admitted", 3, b"key")
    assert dict(written.headers)["ce_id"] == b"req-1+r1"
    assert dict(written.headers)[REPLAYED_FROM] == b"p.dlq/0-5"


def test_an_operator_may_give_more_time() -> None:
    replay = planned(buried("p.admitted", admitted().SerializeToString()), timeout_s=600)
    made = decode(as_read(replay.records[0]), admitted_pb2.AdmittedRequest)
    assert made.deadline.ToDatetime(dt.UTC) == NOW + dt.timedelta(seconds=600)


def test_a_replay_that_died_still_says_what_it_repeats() -> None:
    dead = admitted("req-1~replay-x", purpose=common_pb2.PURPOSE_REPLAY, origin_request_id="req-1")
    replay = planned(buried("p.admitted", dead.SerializeToString()))
    made = decode(as_read(replay.records[0]), admitted_pb2.AdmittedRequest)
    assert made.request_id == "req-1~replay-x+r1"
    assert (made.origin_request_id, made.purpose) == ("req-1", common_pb2.PURPOSE_REPLAY)


@pytest.mark.parametrize(
    ("request_id", "taken", "expected"),
    [
        ("req-1", (), "req-1+r1"),
        ("req-1", ("req-1+r1",), "req-1+r2"),
        ("req-1+r1", (), "req-1+r2"),
        ("req-1+r1", ("req-1+r2", "req-1+r1", "req-12+r9", ""), "req-1+r3"),
        ("req-1", ("req-1+r9", "req-1+r10"), "req-1+r11"),
    ],
)
def test_no_two_runs_of_a_request_share_an_id(
    request_id: str, taken: tuple[str, ...], expected: str
) -> None:
    assert again_id(request_id, taken) == expected


def test_what_others_read_too_is_not_written_twice() -> None:
    with pytest.raises(CliError, match="whoever else reads that topic"):
        planned(buried("p.responses", b""))


def test_an_admitted_record_that_cannot_be_read_gets_no_second_response() -> None:
    with pytest.raises(CliError, match="cannot be given a new id"):
        planned(buried("p.admitted", b"\xff\xff"))


def test_the_shelf_knows_what_was_replayed_and_as_what() -> None:
    shelf = Shelf(Wanted(), with_values=True)
    letter = buried("p.admitted", admitted().SerializeToString())
    shelf.take(letter)
    note = planned(letter).records[1]
    shelf.take(Record(Partition("p.dlq", 0), 6, note.key, note.value, note.headers, 0))
    shelf.take(Record(Partition("p.dlq", 0), 7, None, b"from elsewhere", (), 0))
    assert list(shelf.letters) == ["0-5"]
    assert shelf.replays == {"0-5": ["req-1+r1"]}
    assert shelf.strangers == 1
    assert as_json(shelf.letters["0-5"], shelf.replays)["replays"] == ["req-1+r1"]


@pytest.mark.parametrize(
    ("wanted", "ids"),
    [
        (Wanted(), ["0-1", "0-2", "0-3"]),
        (Wanted(service="ingest"), ["0-1"]),
        (Wanted(reason="poison"), ["0-2"]),
        (Wanted(tenant="acme"), ["0-3"]),
        (Wanted(since=dt.datetime.fromtimestamp(200, dt.UTC)), ["0-2", "0-3"]),
        (Wanted(service="ingest", reason="poison"), []),
    ],
    ids=str,
)
def test_letters_are_found_by_what_they_say(wanted: Wanted, ids: list[str]) -> None:
    shelf = Shelf(wanted, with_values=False)
    shelf.take(
        buried("p.requests", MARKER, at=1, time_ms=100_000, service="ingest", error=ValueError())
    )
    shelf.take(buried("p.admitted", MARKER, at=2, time_ms=200_000, error=Poisoned()))
    shelf.take(buried("p.usage", MARKER, at=3, time_ms=300_000, tenant="acme"))
    assert list(shelf.letters) == ids
    assert all(letter.record.value is None for letter in shelf.letters.values())


def test_what_is_shown_of_a_letter_holds_no_value() -> None:
    error = InvalidRequest(f"not JSON: {MARKER.decode()}")
    shown = as_json(Letter.of(buried("p.requests", MARKER, error=error)), {})
    assert MARKER.decode() not in repr(shown)
    assert shown["error"] == "penstock.errors.InvalidRequest"
    assert shown["reason"] == "invalid"


def test_a_replayed_record_that_dies_again_says_where_it_came_from() -> None:
    again = planned(buried("p.requests", MARKER)).records[0]
    letter = dead_letter(
        as_read(again), dlq_topic="p.dlq", service="s", reason="r", error=None, attempts=1
    )
    assert (REPLAYED_FROM, b"p.dlq/0-5") in letter.headers
