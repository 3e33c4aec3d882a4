"""The stage of a job: what it asks for is kept, and a run again makes the same dataset."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from penstock.v1 import drift_pb2
from penstock_retrain.dataset.examples import Split
from penstock_retrain.dataset.findings import Drift, drift_of
from penstock_retrain.dataset.stage import DatasetStage
from penstock_retrain.dataset.store import FileStore
from penstock_retrain.dataset.writing import open_dataset, read_split
from penstock_retrain.jobs.stages import Outcome, Progress, StageBroken
from penstock_retrain.jobs.states import Cause, CauseKind, Job, JobState
from tests.unit.retrain.dataset.collected_rows import HOUR_MS, NOW_MS, keep
from tests.unit.retrain.dataset.test_select_dataset import said

POLICY = "dataset: {label_field: category, min_rows: 5}\ncanary: {}\n"


class Desk:
    """Keeps facts as the real one does, without a database."""

    def __init__(self) -> None:
        self.kept: dict[str, Any] = {}

    async def keep(self, job: Job, facts: Any, *, step: Any = None, change: Any = None) -> Job:
        self.kept.update(facts)
        return job

    async def note(self, job: Job, facts: Any) -> Job:
        return await self.keep(job, facts)

    async def standing(self, job: Job, candidate: Any) -> Any:
        raise AssertionError


class Found:
    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    async def of(self, incident_id: str, model: str) -> Drift:
        self.asked.append((incident_id, model))
        return Drift(NOW_MS - 2 * HOUR_MS, ("task=refund",))


class Settled:
    """Collects the last rows when it is asked to settle."""

    def __init__(self, store: FileStore) -> None:
        self.store = store

    async def settle(self, timeout_s: float) -> bool:
        keep(self.store, [said(n, labels={"task": "refund"}) for n in range(40)])
        return True


def job(policy: str = POLICY, kind: CauseKind = CauseKind.INCIDENT) -> Job:
    cause = Cause(kind, "incident-1" if kind is CauseKind.INCIDENT else "")
    return Job("job-1", "triage", cause, policy, 0, 0, JobState.DATASET)


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(str(tmp_path / "collected"))


async def test_a_jobs_dataset_is_of_its_incident(store: FileStore, tmp_path: Path) -> None:
    desk, found, said_so = Desk(), Found(), list[Progress]()
    stage = DatasetStage(
        desk, store, tmp_path / "jobs", found, Settled(store), clock_ms=lambda: NOW_MS
    )
    result = await stage.run(job(), said_so.append)
    assert result.outcome is Outcome.DONE
    dataset = open_dataset(tmp_path / "jobs" / "job-1")
    assert result.facts == dataset.facts()
    assert dataset.rows == 40
    assert {e.pool.value for e in read_split(dataset.path, Split.TRAIN)} == {"drifted"}
    assert found.asked == [("incident-1", "triage")]
    assert desk.kept == {
        "asked": {
            "asked_ms": NOW_MS,
            "until_ms": NOW_MS,
            "onset_ms": NOW_MS - 2 * HOUR_MS,
            "drifted": ["task=refund"],
        }
    }
    assert said_so[-1].message == "40 rows written"
    # Killed before the result was kept: the same again, though time went on and more was found.
    kept = dataclasses.replace(job(), results={JobState.DATASET: desk.kept})
    later = DatasetStage(Desk(), store, tmp_path / "jobs", found, clock_ms=lambda: NOW_MS * 2)
    assert (await later.run(kept, said_so.append)).facts == result.facts
    assert len(found.asked) == 1


async def test_a_manual_job_has_no_incident(store: FileStore, tmp_path: Path) -> None:
    found = Found()
    stage = DatasetStage(
        Desk(), store, tmp_path / "jobs", found, Settled(store), clock_ms=lambda: NOW_MS
    )
    result = await stage.run(job(kind=CauseKind.MANUAL), lambda _: None)
    assert (found.asked, result.facts["counts"]["pool.recent"]) == ([], 40)


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ("dataset: {min_rows: 0}", "the policy: dataset.min_rows"),
        (POLICY.replace("5}", "5, wait_s: 0}"), "0 rows to train on"),
    ],
)
async def test_what_trying_again_would_not_help_fails_the_job(
    store: FileStore, tmp_path: Path, policy: str, message: str
) -> None:
    stage = DatasetStage(Desk(), store, tmp_path / "jobs", Found())
    with pytest.raises(StageBroken, match=message):
        await stage.run(job(policy), lambda _: None)


async def test_a_file_that_cannot_be_read_is_tried_again(tmp_path: Path) -> None:
    class Torn(FileStore):
        def list(self, folder: str) -> list[str]:
            raise ValueError("not a Parquet file")

    stage = DatasetStage(Desk(), Torn(str(tmp_path)), tmp_path / "jobs", Found())
    with pytest.raises(ValueError, match="Parquet"):
        await stage.run(job(kind=CauseKind.MANUAL), lambda _: None)


class Clock:
    """Time that passes while the stage sleeps, and what is said meanwhile."""

    def __init__(self, store: FileStore, enough_s: float) -> None:
        self.store, self.enough_s, self.slept_s = store, enough_s, 0.0

    def __call__(self) -> int:
        return NOW_MS + round(self.slept_s * 1000)

    async def sleep(self, seconds: float) -> None:
        self.slept_s += seconds
        if self.slept_s >= self.enough_s:
            keep(self.store, [said(n) for n in range(40)])


async def test_it_waits_for_enough_rows(store: FileStore, tmp_path: Path) -> None:
    desk, clock, told = Desk(), Clock(store, enough_s=60), list[Progress]()
    stage = DatasetStage(desk, store, tmp_path / "jobs", Found(), clock_ms=clock, sleep=clock.sleep)
    result = await stage.run(job(kind=CauseKind.MANUAL), told.append)
    assert (result.outcome, result.facts["counts"]["pool.recent"]) == (Outcome.DONE, 40)
    assert clock.slept_s == 60
    assert desk.kept["asked"]["until_ms"] == NOW_MS + 60_000
    waiting = [each.message for each in told if each.message.endswith("; waiting for more")]
    assert waiting[0].startswith("0 rows to train on, and the policy's min_rows is 5")


async def test_it_does_not_wait_for_ever(store: FileStore, tmp_path: Path) -> None:
    clock = Clock(store, enough_s=10_000)
    stage = DatasetStage(
        Desk(), store, tmp_path / "jobs", Found(), clock_ms=clock, sleep=clock.sleep
    )
    with pytest.raises(StageBroken, match="0 rows to train on"):
        await stage.run(job(kind=CauseKind.MANUAL), lambda _: None)
    assert clock.slept_s == 900


async def test_a_dataset_stays_and_half_of_one_goes(store: FileStore, tmp_path: Path) -> None:
    stage = DatasetStage(
        Desk(), store, tmp_path / "jobs", Found(), Settled(store), clock_ms=lambda: NOW_MS
    )
    await stage.clean(job())
    half = tmp_path / "jobs" / "job-1"
    half.mkdir(parents=True)
    (half / "train.parquet").write_bytes(b"half")
    await stage.clean(job())
    assert list((tmp_path / "jobs").iterdir()) == []
    await stage.run(job(), lambda _: None)
    await stage.clean(job())
    assert open_dataset(half).rows == 40


def event(segment: str, onset_s: int, **more: Any) -> drift_pb2.DriftEvent:
    made = drift_pb2.DriftEvent(
        model="triage", variant="base", segment=segment, signal="label_error"
    )
    made.kind = more.pop("kind", drift_pb2.DRIFT_KIND_QUALITY)
    made.state = more.pop("state", drift_pb2.DRIFT_STATE_DRIFT)
    made.onset.FromSeconds(onset_s)
    for name, value in more.items():
        setattr(made, name, value)
    return made


def test_findings_of_quality_that_stand_say_which_segments_since_when() -> None:
    events = [
        event("", 50),
        event("task=refund", 40),
        event("task=bug", 20),
        event("task=bug", 20, state=drift_pb2.DRIFT_STATE_COOLDOWN),
        event("task=input", 10, kind=drift_pb2.DRIFT_KIND_INPUT),
        event("task=other", 5, model="other"),
    ]
    assert drift_of(events, "triage") == Drift(40_000, ("task=refund",))
    assert drift_of([], "triage") == Drift(None, ())
