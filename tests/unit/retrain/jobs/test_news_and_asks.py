"""Findings open jobs once each; what happens to jobs is told at least once, and in order."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from penstock.codec import decode, encode
from penstock.errors import InvalidRequest
from penstock.kafka.delivery import Delivery
from penstock.kafka.ports import LogError
from penstock.pricing import Price, add, cost_of_training
from penstock.records import Outgoing, Partition, Record
from penstock.v1 import alert_pb2, drift_pb2, job_pb2, usage_pb2
from penstock_retrain.drift_door import DriftDoor
from penstock_retrain.jobs.news import News
from penstock_retrain.jobs.opening import Opening
from penstock_retrain.jobs.policy import Ask
from penstock_retrain.jobs.stages import Progress
from penstock_retrain.jobs.states import Job, JobState, Trigger
from tests.unit.retrain.jobs.places import Place

S, T = JobState, Trigger


class Written:
    """A publisher that may be away."""

    def __init__(self) -> None:
        self.records: list[Outgoing] = []
        self.away = False

    async def publish(self, records: Sequence[Outgoing]) -> None:
        if self.away:
            raise LogError("away")
        self.records.extend(records)

    def of(self, topic: str, message: type[Any]) -> list[Any]:
        return [
            decode(Record(Partition(topic, 0), 0, r.key, r.value, r.headers, 0), message)
            for r in self.records
            if r.topic == topic
        ]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(f"sqlite:///{tmp_path}/retrain.sqlite")
    made.routed()
    yield made
    made.close()


@pytest.fixture
def written() -> Written:
    return Written()


@pytest.fixture
def news(place: Place, written: Written) -> News:
    return News(place.store, written, "p.{}".format, place.tick)


async def test_what_could_not_be_told_is_told_later_once(
    place: Place, written: Written, news: News
) -> None:
    job = place.to(S.DATASET)
    written.away = True
    with pytest.raises(LogError):
        await news.tell()
    written.away = False
    await news.tell()
    place.apply(job, T.ATTEMPT_FAILED, reason="away")
    await news.tell()
    await news.tell()
    updates = written.of("p.jobs", job_pb2.JobUpdate)
    assert [(u.revision, u.transition.trigger) for u in updates] == [
        (1, "opened"),
        (2, "started"),
        (3, "attempt_failed"),
    ]
    assert not written.of("p.alerts", alert_pb2.Alert)


async def test_a_wait_is_an_incident_from_its_beginning_to_its_end(
    place: Place, written: Written, news: News
) -> None:
    job = place.apply(place.to(S.CANARY), T.INCONCLUSIVE, reason="too few")
    began_us = place.now_us
    await news.tell()
    place.store.act(job.id, place.event(T.CONTINUED))
    await news.tell()
    opened, resolved = written.of("p.alerts", alert_pb2.Alert)
    assert (opened.state, resolved.state) == (1, 3)
    assert opened.incident_id == resolved.incident_id == "retrain/job-1"
    assert opened.opened_at == resolved.opened_at
    assert opened.opened_at.ToMicroseconds() == began_us
    assert "too few" in opened.summary
    assert "penstock rollout promote job-1" in opened.summary
    assert opened.severity == alert_pb2.SEVERITY_TICKET
    # The pages that alerts name are there.
    assert (Path(__file__).parents[4] / opened.runbook).is_file()


async def test_a_training_costs_what_it_saw_once(
    place: Place, written: Written, news: News
) -> None:
    job = place.to(S.TRAINING)
    facts = {"kind": "adapter", "base_model": "triage", "metrics": {"tokens": 52_113.0}}
    job = place.apply(job, T.DONE, facts=facts)
    await news.tell()
    place.done(job)
    await news.tell()
    (line,) = written.of("p.usage", usage_pb2.UsageLine)
    assert (line.line_id, line.request_id, line.tenant) == (
        "job-1/training",
        "job-1",
        "penstock-retrain",
    )
    assert (line.kind, line.model) == (usage_pb2.USAGE_KIND_TRAINING, "triage")
    assert (line.usage.prompt_tokens, line.usage.completion_tokens) == (52_113, 0)


async def test_a_training_of_more_tokens_than_a_line_counts_costs_the_same(
    place: Place, written: Written, news: News
) -> None:
    seen = 2 * (2**32 - 1) + 5
    facts = {"kind": "adapter", "base_model": "triage", "metrics": {"tokens": float(seen)}}
    place.apply(place.to(S.TRAINING), T.DONE, facts=facts)
    await news.tell()
    lines = written.of("p.usage", usage_pb2.UsageLine)
    assert [line.line_id for line in lines] == [
        "job-1/training",
        "job-1/training/2",
        "job-1/training/3",
    ]
    assert sum(line.usage.prompt_tokens for line in lines) == seen
    price = Price("1", None, *[Decimal("1e-7")] * 3, training_usd=Decimal("8.123456789e-7"))
    parts = [cost_of_training("triage", price, line.usage.prompt_tokens) for line in lines]
    assert add(*parts) == cost_of_training("triage", price, seen)


@pytest.mark.parametrize("tokens", [1e300, "many"])
async def test_a_cost_that_cannot_be_told_holds_nothing_up(
    place: Place, written: Written, news: News, tokens: Any
) -> None:
    facts = {"kind": "adapter", "base_model": "triage", "metrics": {"tokens": tokens}}
    job = place.apply(place.to(S.TRAINING), T.DONE, facts=facts)
    place.done(job)
    await news.tell()
    await news.tell()
    assert not written.of("p.usage", usage_pb2.UsageLine)
    updates = written.of("p.jobs", job_pb2.JobUpdate)
    assert [update.revision for update in updates] == [1, 2, 3, 4, 5]
    (alert,) = written.of("p.alerts", alert_pb2.Alert)
    assert alert.alert_id == "retrain/job-1/4/untold/cost"
    assert (alert.state, alert.severity) == (3, alert_pb2.SEVERITY_TICKET)


async def test_what_was_trained_elsewhere_costs_nothing_here(
    place: Place, written: Written, news: News
) -> None:
    place.done(place.to(S.TRAINING))
    await news.tell()
    assert not written.of("p.usage", usage_pb2.UsageLine)


async def test_of_much_progress_the_newest_is_told(
    place: Place, written: Written, news: News
) -> None:
    job = place.to(S.TRAINING)
    await news.tell()
    written.records.clear()
    for step in range(1, 6):
        news.progressed(job, Progress("training", step, 5, 1.5, {"loss": 1 / step}))
    await news.tell()
    (update,) = written.of("p.jobs", job_pb2.JobUpdate)
    assert (update.progress.step, update.progress.steps) == (5, 5)
    assert (update.progress.metrics["loss"], update.progress.eta_s) == (0.2, 1.5)
    assert update.state == job_pb2.JOB_STATE_TRAINING
    # Nobody waits for progress.
    written.away = True
    news.progressed(job, Progress("training"))
    news._told_at.clear()
    await news.tell()


@pytest.mark.parametrize(
    "progress",
    [
        Progress("training", metrics={"loss": "low"}),  # type: ignore[dict-item]
        Progress("training", metrics={"loss": None}),  # type: ignore[dict-item]
        Progress("half a character: \ud800"),
    ],
)
async def test_progress_that_cannot_be_told_ends_nothing(
    place: Place, written: Written, news: News, progress: Progress
) -> None:
    job = place.to(S.TRAINING)
    news.progressed(job, progress)
    await news.tell()
    news._told_at.clear()
    news.progressed(job, Progress("training", 1, 5))
    await news.tell()
    assert written.of("p.jobs", job_pb2.JobUpdate)[-1].progress.step == 1


async def test_news_that_no_broker_takes_hold_nothing_up(
    place: Place, written: Written, news: News
) -> None:
    job = place.apply(place.to(S.CANARY), T.INCONCLUSIVE, reason="x" * 1_100_000)
    place.store.act(job.id, place.event(T.ABORTED))
    await news.tell()
    assert max(len(record.value or b"") for record in written.records) < 1_048_588
    revisions = [update.revision for update in written.of("p.jobs", job_pb2.JobUpdate)]
    assert revisions == [*range(1, job.revision), job.revision + 1]
    assert not place.store.news(10)


class Ended:
    """What a delivery tells: its end."""

    def __init__(self) -> None:
        self.done = asyncio.Event()

    def began(self, offset: int) -> None:
        return

    def died(self, offset: int) -> None:
        return

    def ended(self, delivery: Delivery, outputs: Sequence[Outgoing], *, dead: bool) -> None:
        assert not outputs
        self.done.set()


def finding(place: Place, event_id: str, **fields: Any) -> Record:
    said: dict[str, Any] = {
        "event_id": event_id,
        "model": "triage",
        "signal": "accuracy",
        "kind": drift_pb2.DRIFT_KIND_QUALITY,
        "state": drift_pb2.DRIFT_STATE_DRIFT,
        "action": "retrain",
        "incident_id": "i1",
    }
    event = drift_pb2.DriftEvent(**(said | fields))
    event.detected_at.FromMicroseconds(place.now_us)
    made = encode(event, topic="p.drift", key="triage/base", source="drift")
    return Record(Partition("p.drift", 0), 0, made.key, made.value, made.headers, 0)


async def handled(door: DriftDoor, record: Record) -> None:
    ended = Ended()
    door.accept(Delivery(record, 0, ended))
    async with asyncio.timeout(30):
        await ended.done.wait()


async def test_a_finding_opens_one_job_however_often_it_comes(place: Place) -> None:
    moves: list[int] = []
    opening = Opening(place.store, lambda: "start: {cooldown_s: 10}")
    door = DriftDoor(opening, "p.dlq", lambda: moves.append(1), place.tick)
    await handled(door, finding(place, "e0", kind=drift_pb2.DRIFT_KIND_INPUT))
    assert place.store.newest(before=None, limit=9) == []
    record = finding(place, "e1")
    await handled(door, record)
    await handled(door, record)
    await handled(door, finding(place, "e2"))  # while one is active
    (job,) = place.store.newest(before=None, limit=9)
    assert (job.cause.event_id, job.cause.id) == ("e1", "i1")
    place.store.act(job.id, place.event(T.ABORTED))
    await handled(door, finding(place, "e3"))  # within the cool-down
    await handled(door, record)  # delivered again after its job has ended
    assert len(place.store.newest(before=None, limit=9)) == 1
    place.tick(11_000_000)
    await handled(door, finding(place, "e4"))
    assert [j.cause.event_id for j in place.store.newest(before=None, limit=9)] == ["e4", "e1"]


class FirstIsSlow(Opening):
    """The first finding's job is opened when the second one's is, if that does not wait for it."""

    opened = threading.Event()

    def asked(self, ask: Ask, now_us: int) -> tuple[Job | None, str]:
        if ask.cause.event_id == "e1":
            self.opened.wait(0.5)
        found = super().asked(ask, now_us)
        self.opened.set()
        return found


async def test_of_two_findings_at_once_the_first_opens_the_job(place: Place) -> None:
    door = DriftDoor(FirstIsSlow(place.store, lambda: ""), "p.dlq", lambda: None, place.tick)
    await asyncio.gather(*(handled(door, finding(place, name)) for name in ("e1", "e2")))
    (job,) = place.store.newest(before=None, limit=9)
    assert job.cause.event_id == "e1"


def test_what_is_no_event_is_a_dead_letter(place: Place) -> None:
    door = DriftDoor(Opening(place.store, lambda: ""), "p.dlq", lambda: None)
    record = Record(Partition("p.drift", 0), 7, b"k", b"\xff\xff", (), 0)
    with pytest.raises(InvalidRequest) as error:
        door.accept(Delivery(record, 0, Ended()))
    (letter,) = door.failed(record, error.value)
    assert (letter.topic, letter.value) == ("p.dlq", b"\xff\xff")
