"""A version's files are whole, signed and carded, however often the stage was killed."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from penstock.codec import encode
from penstock.manifest import ManifestError, verify, write_manifest
from penstock.records import Partition, Record
from penstock.signing import PublicKeys, SigningKey
from penstock.v1 import route_pb2
from penstock_retrain.jobs.desk import SqlDesk
from penstock_retrain.jobs.route_view import RouteView
from penstock_retrain.jobs.stages import JobMoved, NotYet, Outcome, StageBroken
from penstock_retrain.jobs.states import Job, JobState, Trigger
from penstock_retrain.registry import stage as module
from penstock_retrain.registry.stage import RegisteringStage
from tests.unit.retrain.jobs.places import FOUND, LEASE_US, Place

S, T = JobState, Trigger
GATES = {
    "passed": True,
    "rows": [
        {
            "metric": "exact_match",
            "slice": "all",
            "n": 200,
            "estimate": 0.91,
            "low": 0.87,
            "high": 0.94,
            "threshold": 0.85,
            "verdict": "pass",
        },
        {"metric": "exact_match", "slice": "a|b", "n": 3, "estimate": None, "verdict": "hold"},
    ],
}


class Bench:
    def __init__(self, root: Path) -> None:
        self.place = Place(f"sqlite:///{root}/retrain.sqlite")
        self.place.routed()
        self.trained = root / "runs" / "job-1"
        self.adapters, self.models = root / "adapters", root / "models"
        self.key = SigningKey.load_or_make(root / "key.pem")
        self.known = PublicKeys.load([root / "key.pem.pub"])
        self.view = RouteView()
        self.desk = SqlDesk(self.place.store, self.place.outbox, self.view, lambda: None)
        self.stage = RegisteringStage(
            self.desk, self.place.registry, self.adapters, self.models, self.key
        )
        self.trained.mkdir(parents=True)
        (self.trained / "adapter_config.json").write_text('{"peft_type": "LORA"}')
        (self.trained / "adapter_model.safetensors").write_bytes(b"weights")
        (self.trained / "README.md").write_text("PEFT's own card")
        (self.trained / "manifest.json").write_text("the training's own")

    def job(self, kind: str = "adapter") -> Job:
        job = self.place.to(S.TRAINING)
        facts = {**FOUND[S.TRAINING], "kind": kind, "dir": str(self.trained), "loss": 0.25}
        job = self.place.apply(job, T.DONE, facts=facts)
        return self.place.apply(job, T.DONE, facts=GATES)

    def publish(self) -> None:
        """What waits in the outbox is on the log."""
        route = self.place.outbox.head("triage")
        assert route is not None
        made = encode(route, topic="routes", key="triage", source="test")
        place = Partition("routes", 0)
        self.view.on_record(Record(place, 0, made.key, made.value, made.headers, 0))

    async def run(self, job: Job) -> dict[str, str]:
        result = await self.stage.run(job, lambda progress: None)
        assert result.outcome is Outcome.DONE
        return dict(result.facts)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.place.close()


async def test_the_directory_is_whole_signed_and_carded(bench: Bench) -> None:
    facts = await bench.run(bench.job())
    place = bench.adapters / "triage-v1"
    assert verify(place, bench.known) == facts["digest"]
    assert sorted(p.name for p in place.iterdir()) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "manifest.json",
    ]
    assert (facts["name"], facts["adapter"], facts["base_model"]) == (
        "triage-v1",
        "triage-v1",
        "triage",
    )
    assert facts["card"] == (place / "README.md").read_text()


async def test_the_card_has_front_matter_data_gates_and_where_to_look(bench: Bench) -> None:
    card = (await bench.run(bench.job()))["card"]
    _, front, body = card.split("---\n", 2)
    said = yaml.safe_load(front)
    assert (said["base_model"], said["library_name"]) == ("triage", "peft")
    assert said["datasets"] == [f"penstock/triage@{'d' * 12}"]
    assert said["model-index"][0]["results"][0]["metrics"] == [
        {"type": "exact_match", "value": 0.91, "name": "exact_match"}
    ]
    assert "job:job-1" in said["tags"]
    assert "Version 1 of `triage`, made by job `job-1`. Started by hand by me." in body
    assert '- sources: {"responses/0": [3, 102]}' in body
    assert "- loss: 0.25" in body
    assert "| exact_match | all | 200 | 0.91 | 0.87 | 0.94 | 0.85 | pass |" in body
    assert "| exact_match | a\\|b | 3 |  |  |  |  | hold |" in body
    assert "penstock lineage triage@1" in body


async def test_a_killed_run_is_done_again_into_the_same_version(bench: Bench) -> None:
    job = bench.job()
    half = bench.adapters / ".triage-v1.half" / "triage-v1"
    half.mkdir(parents=True)
    (half / "adapter_model.safetensors").write_bytes(b"wei")
    first = await bench.run(job)
    again = await bench.run(job)
    assert first == again
    assert [p.name for p in bench.adapters.iterdir()] == ["triage-v1"]
    assert [v.version for v in bench.place.registry.versions("triage")] == [1]


async def test_a_copy_that_was_cancelled_is_put_nowhere(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied, go_on = threading.Event(), threading.Event()

    def slowly(directory: Path, key: SigningKey) -> object:
        copied.set()
        assert go_on.wait(30)
        return write_manifest(directory, key)

    monkeypatch.setattr(module, "write_manifest", slowly)
    running = asyncio.create_task(bench.stage.run(bench.job(), lambda progress: None))
    assert await asyncio.to_thread(copied.wait, 30)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    go_on.set()
    await asyncio.get_running_loop().shutdown_default_executor()  # its thread has ended
    assert not (bench.adapters / "triage-v1").exists()


async def test_who_has_lost_the_job_puts_nothing_there(bench: Bench) -> None:
    job = bench.job()
    bench.place.now_us += LEASE_US
    theirs = bench.place.claim("two")
    with pytest.raises(JobMoved):
        await bench.stage.run(job, lambda progress: None)
    assert not (bench.adapters / "triage-v1").exists()
    await bench.run(theirs)
    assert [p.name for p in bench.adapters.iterdir()] == ["triage-v1"]


async def test_full_weights_go_elsewhere_and_are_a_base_model_of_their_own(bench: Bench) -> None:
    facts = await bench.run(bench.job("full"))
    assert (facts["adapter"], facts["base_model"]) == ("", "triage-v1")
    assert verify(bench.models / "triage-v1", bench.known)
    assert not bench.adapters.exists()


async def test_what_somebody_changed_is_not_registered(bench: Bench) -> None:
    job = bench.job()
    await bench.run(job)
    (bench.adapters / "triage-v1" / "adapter_model.safetensors").write_bytes(b"other")
    with pytest.raises(StageBroken, match="is not what was signed"):
        await bench.stage.run(job, lambda progress: None)


async def test_what_another_job_left_under_the_name_is_not_registered(bench: Bench) -> None:
    """The database is gone, or is an older one, and the directory of adapters is not."""
    await bench.run(bench.job())
    (bench.trained / "adapter_model.safetensors").write_bytes(b"other weights")
    bench.place.close()
    bench.place = Place(f"sqlite:///{bench.trained.parent}/another.sqlite")
    bench.place.routed()
    desk = SqlDesk(bench.place.store, bench.place.outbox, bench.view, lambda: None)
    bench.stage = RegisteringStage(
        desk, bench.place.registry, bench.adapters, bench.models, bench.key
    )
    with pytest.raises(StageBroken, match="is not what job job-1 trained"):
        await bench.stage.run(bench.job(), lambda progress: None)


async def test_a_training_that_left_nothing_is_told(bench: Bench) -> None:
    job = bench.job()
    for path in bench.trained.iterdir():
        path.unlink()
    with pytest.raises(StageBroken, match="nothing is there"):
        await bench.stage.run(job, lambda progress: None)


@pytest.mark.parametrize(
    ("ends", "stays"),
    [
        ((T.PROMOTE,), True),
        ((T.ROLL_BACK,), False),
        ((T.ABORTED,), False),
        ((T.PROMOTE, T.ROLLED_BACK_BY_HAND), False),
    ],
)
async def test_only_what_may_be_served_keeps_its_files(
    bench: Bench, ends: tuple[Trigger, ...], stays: bool
) -> None:
    job = bench.job()
    result = await bench.stage.run(job, lambda progress: None)
    job = bench.place.apply(job, T.DONE, facts=result.facts)
    job = bench.place.apply(job, T.DONE)
    for trigger in ends:
        job = bench.place.store.act(job.id, bench.place.event(trigger))
    (bench.adapters / ".triage-v1.half").mkdir()
    bench.publish()
    await bench.stage.clean(job)
    await bench.stage.clean(job)
    assert [p.name for p in bench.adapters.iterdir()] == (["triage-v1"] if stays else [])


async def aborted(bench: Bench) -> Job:
    """A job that was ended once its version was registered."""
    job = bench.job()
    result = await bench.stage.run(job, lambda progress: None)
    job = bench.place.apply(job, T.DONE, facts=result.facts)
    return bench.place.apply(job, T.ABORTED)


async def test_what_a_route_named_that_was_ended_is_removed(bench: Bench) -> None:
    job = await aborted(bench)
    bench.publish()
    bench.view.on_record(Record(Partition("routes", 0), 1, b"triage", None, (), 0))
    bench.place.outbox.forget(bench.view.take_ended(), bench.place.tick())
    await bench.stage.clean(job)
    assert list(bench.adapters.iterdir()) == []


async def test_what_a_killed_removal_left_is_removed(bench: Bench) -> None:
    job = await aborted(bench)
    (bench.adapters / "triage-v1").rename(bench.adapters / ".triage-v1.gone")
    bench.publish()
    await bench.stage.clean(job)
    assert list(bench.adapters.iterdir()) == []


async def test_what_a_route_names_again_keeps_its_files_until_it_does_not(bench: Bench) -> None:
    job = await aborted(bench)
    named = bench.place.outbox.head("triage")
    assert named is not None
    named.version += 1
    added = named.variants.add(name="triage-v1", base_model="triage", adapter="triage-v1")
    added.stage = route_pb2.STAGE_CANDIDATE
    bench.place.outbox.observe([named])
    with pytest.raises(NotYet, match="triage-v1"):
        await bench.stage.clean(job)
    assert (bench.adapters / "triage-v1" / "manifest.json").exists()
    del named.variants[1:]
    named.version += 1
    bench.place.outbox.observe([named])
    with pytest.raises(NotYet):
        await bench.stage.clean(job)  # engines do not know of it yet
    bench.publish()
    await bench.stage.clean(job)
    assert list(bench.adapters.iterdir()) == []


async def test_the_gates_report_goes_with_the_version(bench: Bench, tmp_path: Path) -> None:
    report = tmp_path / "gates.html"
    report.write_text("<!doctype html>")
    job = bench.job()
    told = {**GATES, "attachments": {"gates.html": str(report)}}
    job = dataclasses.replace(job, results={**job.results, S.EVALUATING: told})
    facts = await bench.run(job)
    place = bench.adapters / "triage-v1"
    assert (place / "gates.html").read_text() == "<!doctype html>"
    # It is signed with the rest.
    assert verify(place, bench.known) == facts["digest"]
    (place / "gates.html").write_text("other")
    with pytest.raises(ManifestError):
        verify(place, bench.known)
