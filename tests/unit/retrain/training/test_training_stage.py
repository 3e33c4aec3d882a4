"""The stage without Ray: what it asks for, what it does not do twice, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from penstock.manifest import file_digests
from penstock.settings import SettingsError
from penstock_retrain.bases import Bases
from penstock_retrain.jobs.effects import effects
from penstock_retrain.jobs.policy import parse_policy
from penstock_retrain.jobs.stages import NotYet, Outcome, Progress, StageBroken
from penstock_retrain.jobs.states import Cause, CauseKind, Event, Job, JobState, Trigger, transition
from penstock_retrain.settings import RetrainSettings
from penstock_retrain.training.policy import TrainingPolicy
from penstock_retrain.training.request import Resources, TrainingRequest
from penstock_retrain.training.runs import Run
from penstock_retrain.training.stage import TrainingStage
from tests.unit.retrain.training.asked import KeepingDesk, trained

DATASET = {"path": "/datasets/job-1", "digest": "d" * 64}


def job(policy: str = "", dataset: Any = DATASET) -> Job:
    cause = Cause(CauseKind.MANUAL)
    made = Job("job-1", "triage", cause, policy, 0, 0, JobState.TRAINING)
    return dataclasses.replace(made, results={JobState.DATASET: dataset})


@pytest.fixture
def stage(tmp_path: Path) -> TrainingStage:
    for name in ("bases/triage", "models/triage-v3"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.json").write_text("{}")
    bases = {"triage": tmp_path / "bases" / "triage"}
    folder, found = tmp_path / "training", Bases(bases, tmp_path / "models")
    return TrainingStage(KeepingDesk(), folder, Resources(), found)


async def request(stage: TrainingStage, of: Job) -> TrainingRequest:
    """What a stage asks for."""
    policy = TrainingPolicy.of(parse_policy(of.policy).training)
    return stage._request(await stage._asked(of, policy), policy)


async def test_what_is_finished_is_not_run_again(stage: TrainingStage, tmp_path: Path) -> None:
    asked = await request(stage, job("training: {method: full, learning_rate: 0.001}"))
    run = Run((tmp_path / "training" / "job-1").resolve())
    run.prepare(asked)
    run.half.mkdir()
    run.finish(asked, trained(asked))
    said: list[Progress] = []
    result = await stage.run(job("training: {method: full, learning_rate: 0.001}"), said.append)
    assert (result.outcome, said) == (Outcome.DONE, [])  # no process was started
    assert {name: result.facts[name] for name in ("kind", "base_model", "dir", "method")} == {
        "kind": "adapter",
        "base_model": "triage",
        "dir": str(run.result),
        "method": "full",
    }
    assert result.facts["metrics"] == {"held_out_loss": 0.5, "held_out_loss_before": 2.0}
    assert (result.facts["learning_rate"], result.facts["seed"]) == (0.001, 7)
    # What comes of it is what a version is made of.
    event = Event(Trigger.DONE, 1, facts=result.facts)
    [made] = effects(job(), transition(job(), event), event)
    assert (made.made.kind, made.made.base_model) == ("adapter", "triage")  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("name", "path"), [("triage", "bases/triage"), ("triage-v3", "models/triage-v3")]
)
async def test_a_base_is_an_engines_model_or_a_version(
    stage: TrainingStage, tmp_path: Path, name: str, path: str
) -> None:
    asked = await request(stage, job(f"training: {{base_model: {name}}}"))
    assert (asked.base_model, asked.base_path) == (name, (tmp_path / path).resolve())


@pytest.mark.parametrize(
    ("policy", "serving", "base"),
    [
        ("", "triage-v3", "triage-v3"),
        ("training: {base_model: triage}", "triage-v3", "triage"),
        ("", "", "triage"),  # no route yet: the model's own name
    ],
)
async def test_without_a_word_in_the_policy_what_serves_the_champion_is_changed(
    stage: TrainingStage, tmp_path: Path, policy: str, serving: str, base: str
) -> None:
    asking = TrainingStage(
        stage._desk,
        stage._folder,
        stage._resources,
        stage._bases,
        serving={"triage": serving}.__getitem__,
    )
    assert (await request(asking, job(policy))).base_model == base


async def test_an_attempt_after_another_promotion_trains_the_same_base(
    stage: TrainingStage,
) -> None:
    champion = "triage"
    asking = TrainingStage(
        stage._desk, stage._folder, stage._resources, stage._bases, serving=lambda model: champion
    )
    policy = TrainingPolicy.of({})
    begun = await asking._asked(job(), policy)
    champion = "triage-v3"
    again = await asking._asked(begun, policy)
    assert asking._request(again, policy).base_model == "triage"


@pytest.mark.parametrize(
    ("policy", "dataset", "message"),
    [
        ("training: {method: qlora}", DATASET, r"the policy: training\.method"),
        ("training: 3", DATASET, "the policy: training: "),
        ("training: {base_model: other}", DATASET, "PENSTOCK_RETRAIN_BASE_MODELS"),
        ("", {}, "no dataset"),
    ],
)
async def test_what_trying_again_would_not_help_fails_the_job(
    stage: TrainingStage, policy: str, dataset: Any, message: str
) -> None:
    with pytest.raises(StageBroken, match=message):
        await stage.run(job(policy, dataset), lambda _: None)


IMPORTED = "training: {method: imported, imported: {adapter: made-elsewhere}}"


@pytest.fixture
def importing(stage: TrainingStage, tmp_path: Path) -> TrainingStage:
    adapter = tmp_path / "imports" / "made-elsewhere"
    adapter.mkdir(parents=True)
    (adapter / "adapter_config.json").write_text('{"r": 8, "base_model_name_or_path": "/x"}')
    (adapter / "adapter_model.safetensors").write_bytes(b"weights")
    (adapter / "notes.txt").write_text("not ours")
    return TrainingStage(
        stage._desk, stage._folder, stage._resources, stage._bases, tmp_path / "imports"
    )


async def test_an_adapter_from_elsewhere_is_a_trainings_result(
    importing: TrainingStage, tmp_path: Path
) -> None:
    result = await importing.run(job(IMPORTED), lambda _: None)
    assert (result.outcome, result.facts["kind"]) == (Outcome.DONE, "adapter")
    assert "learning_rate" not in result.facts
    made = Path(result.facts["dir"])
    assert sorted(file_digests(made)) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "training.json",
    ]
    config = json.loads((made / "adapter_config.json").read_text())
    assert config == {"r": 8, "base_model_name_or_path": "triage"}
    # Done again, as after a kill, it is what it was, whatever has become of the source.
    shutil.rmtree(tmp_path / "imports")
    assert await importing.run(job(IMPORTED), lambda _: None) == result


@pytest.mark.parametrize(
    ("break_", "message"),
    [
        (lambda path: (path / "adapter_model.safetensors").unlink(), "adapter_model.safetensors"),
        (lambda path: (path / "adapter_config.json").write_text("[]"), "no JSON object"),
        (lambda path: (path / "manifest.json").write_text("{}"), "manifest"),
    ],
)
async def test_what_is_no_adapter_is_not_taken_in(
    importing: TrainingStage, tmp_path: Path, break_: Callable[[Path], object], message: str
) -> None:
    break_(tmp_path / "imports" / "made-elsewhere")
    with pytest.raises(StageBroken, match=rf"training\.imported\.adapter: .*{message}"):
        await importing.run(job(IMPORTED), lambda _: None)


async def test_nothing_is_taken_in_from_nowhere(stage: TrainingStage) -> None:
    with pytest.raises(StageBroken, match="PENSTOCK_RETRAIN_IMPORTS_DIR"):
        await stage.run(job(IMPORTED), lambda _: None)


async def test_what_another_process_trains_in_is_not_cleaned_yet(
    stage: TrainingStage, tmp_path: Path
) -> None:
    run = Run((tmp_path / "training" / "job-1").resolve())
    run.prepare(await request(stage, job()))
    with run.held(0), pytest.raises(NotYet, match="another process"):
        await stage.clean(job())
    await stage.clean(job())


async def test_nothing_is_left_to_clean_of_what_never_began(stage: TrainingStage) -> None:
    await stage.clean(job())


@pytest.mark.parametrize(
    ("written", "bases"),
    [
        ("triage=a/b", {"triage": Path("a/b")}),
        (" one = /x , two=/y,", {"one": Path("/x"), "two": Path("/y")}),
        ("", {}),
    ],
)
def test_base_models_are_named_directories(
    monkeypatch: pytest.MonkeyPatch, written: str, bases: dict[str, Path]
) -> None:
    monkeypatch.setenv("PENSTOCK_RETRAIN_BASE_MODELS", written)
    assert RetrainSettings.load().base_models == bases


def test_a_base_model_without_a_directory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_RETRAIN_BASE_MODELS", "triage,other=/x")
    with pytest.raises(SettingsError, match=r"PENSTOCK_RETRAIN_BASE_MODELS: .*name=directory"):
        RetrainSettings.load()
