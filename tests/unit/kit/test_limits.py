"""A consumer stops at a share or a run of dead letters, and at nothing else."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.codec import encode
from penstock.kafka.halts import HaltAlerts, Resumes, resume_applies
from penstock.kafka.limits import Breach, Broken, DeadLetterLimit
from penstock.records import Partition, Record
from penstock.v1 import admitted_pb2, control_pb2

P = Partition("penstock.admitted", 2)
HALTS = HaltAlerts("inference", "pump", "penstock.alerts")
ROOT = Path(__file__).parents[3]
HALTED_AT_MS = 1_777_636_800_123
BREACH = Breach(Broken.SHARE, dead=150, handled=1000, run=3, max_share=0.1, max_run=20)


@dataclasses.dataclass(frozen=True)
class Settings:
    max_share: float
    window_records: int
    window_s: float
    min_count: int
    max_run: int


@st.composite
def settings(draw: st.DrawFn) -> Settings:
    window_records = draw(st.integers(1, 12))
    return Settings(
        max_share=draw(st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0])),
        window_records=window_records,
        window_s=draw(st.sampled_from([1.0, 4.0, 1e6])),
        min_count=draw(st.integers(1, window_records)),
        max_run=draw(st.integers(1, 8)),
    )


events = st.lists(st.tuples(st.booleans(), st.integers(0, 3)), max_size=60)


@given(settings(), events)
def test_a_breach_is_what_counting_everything_anew_says(
    chosen: Settings, steps: list[tuple[bool, int]]
) -> None:
    limit = DeadLetterLimit(**dataclasses.asdict(chosen))
    history: list[tuple[float, bool]] = []
    now_s = 0.0
    for dead, wait_s in steps:
        now_s += wait_s
        history.append((now_s, dead))
        recent = history[-chosen.window_records :]
        window = [d for at, d in recent if at >= now_s - chosen.window_s]
        run = 0
        for _, was_dead in reversed(history):
            if not was_dead:
                break
            run += 1
        share = len(window) >= chosen.min_count and sum(window) > chosen.max_share * len(window)
        breach = limit.observe(dead, now_s)
        if run >= chosen.max_run:
            assert breach is not None
            assert breach.broken is Broken.RUN
        elif share:
            assert breach is not None
            assert breach.broken is Broken.SHARE
        else:
            assert breach is None
        if breach is not None:
            assert (breach.dead, breach.handled, breach.run) == (sum(window), len(window), run)


@given(events)
def test_records_that_were_handled_never_stop_a_consumer(steps: list[tuple[bool, int]]) -> None:
    limit = DeadLetterLimit(max_share=0, min_count=1, max_run=1)
    assert all(limit.observe(False, float(n)) is None for n, _ in enumerate(steps))


def test_a_broken_deploy_costs_no_more_than_the_run() -> None:
    limit = DeadLetterLimit()
    for n in range(100_000):
        assert limit.observe(False, n / 1000) is None
    stopped = next(n for n in range(1, 1000) if limit.observe(True, 100 + n / 1000) is not None)
    assert stopped == 20


def test_one_in_five_stops_by_its_share_within_half_a_window() -> None:
    limit = DeadLetterLimit()
    for n in range(1000):
        assert limit.observe(False, n / 100) is None
    breaches = [limit.observe(n % 5 == 0, 10 + n / 100) for n in range(1000)]
    first = next(n for n, breach in enumerate(breaches) if breach is not None)
    assert first == 500
    assert breaches[first] == Breach(Broken.SHARE, 101, 1000, 1, 0.1, 20)


def test_one_bad_producer_among_twenty_stops_nothing() -> None:
    limit = DeadLetterLimit()
    assert all(limit.observe(n % 20 == 0, n / 50) is None for n in range(20_000))


def test_a_slow_partition_forgets() -> None:
    limit = DeadLetterLimit(min_count=5, max_share=0.3)
    for n in range(4):
        limit.observe(True, n)
    assert limit.observe(False, 4.0) is not None
    assert limit.observe(False, 4.0 + 601) is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_share": 1.1},
        {"max_share": -0.1},
        {"min_count": 0},
        {"min_count": 11, "window_records": 10},
        {"window_s": 0.0},
        {"max_run": 0},
    ],
    ids=str,
)
def test_limits_without_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        DeadLetterLimit(**wrong)  # type: ignore[arg-type]


def test_the_alert_says_what_happened_and_what_to_type() -> None:
    (record,) = HALTS.opened(P, BREACH, HALTED_AT_MS)
    shown = json.loads(record.value or b"")
    assert record.topic == "penstock.alerts"
    assert record.key == b"dead-letters/pump/penstock.admitted/2/1777636800123"
    assert shown["severity"] == "SEVERITY_PAGE"
    assert shown["state"] == "ALERT_STATE_OPENED"
    assert shown["title"].endswith("penstock.admitted, partition 2: too many dead letters")
    assert "150 of the last 1000 records are dead letters (15%)" in shown["summary"]
    command = "penstock consumers resume pump --topic penstock.admitted --partition 2"
    assert shown["summary"].endswith(command)
    assert (ROOT / shown["runbook"]).is_file()


def test_the_alert_is_resolved_under_its_incident() -> None:
    (opened,) = HALTS.opened(P, BREACH, HALTED_AT_MS)
    (resolved,) = HALTS.resolved(P, HALTED_AT_MS)
    before, after = json.loads(opened.value or b""), json.loads(resolved.value or b"")
    assert opened.key == resolved.key
    assert before["incident_id"] == after["incident_id"]
    assert before["alert_id"] != after["alert_id"]
    assert before["opened_at"] == after["opened_at"]
    assert after["state"] == "ALERT_STATE_RESOLVED"


@pytest.mark.parametrize(
    ("change", "applies"),
    [
        ({}, True),
        ({"partition": 2}, True),
        ({"partition": 0}, False),
        ({"group": "other"}, False),
        ({"topic": "penstock.requests"}, False),
        ({"after_ms": 0}, False),
        ({"after_ms": -1}, False),
    ],
    ids=str,
)
def test_a_command_is_for_its_own_halt_only(change: dict[str, object], applies: bool) -> None:
    resume = control_pb2.Resume(
        group=str(change.get("group", "pump")), topic=str(change.get("topic", P.topic))
    )
    if "partition" in change:
        resume.partition = int(str(change["partition"]))
    resume.requested_at.FromMilliseconds(HALTED_AT_MS + int(str(change.get("after_ms", 1))))
    found = resume_applies(resume, group="pump", partition=P, halted_at_ms=HALTED_AT_MS)
    assert found is applies


def test_a_consumer_hears_the_commands_that_are_for_it() -> None:
    heard: list[tuple[int | None, int]] = []
    resumes = Resumes("pump", P.topic, lambda number, at_ms: heard.append((number, at_ms)))

    def say(command: control_pb2.Control) -> None:
        written = encode(command, topic="penstock.control", key=None, source="test")
        where = Partition("penstock.control", 0)
        resumes.take(Record(where, 0, None, written.value, written.headers, 0))

    for group, topic, number in (
        ("pump", P.topic, None),
        ("pump", P.topic, 3),
        ("pump", "other", 3),
        ("other", P.topic, 3),
    ):
        resume = control_pb2.Resume(group=group, topic=topic, partition=number)
        resume.requested_at.FromMilliseconds(HALTED_AT_MS)
        say(control_pb2.Control(resume=resume))
    say(control_pb2.Control(cancel=admitted_pb2.Cancellation(request_id="pump")))
    resumes.take(Record(P, 0, None, b"\xff\xff", (), 0))
    assert heard == [(None, HALTED_AT_MS), (3, HALTED_AT_MS)]
