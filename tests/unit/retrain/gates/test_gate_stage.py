"""The stage of a job: its candidate beside the champion, rejected or let on."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from penstock.manifest import write_manifest
from penstock_retrain.bases import Bases
from penstock_retrain.gates.contenders import RegistryContenders, contender_of
from penstock_retrain.gates.errors import AnswersError, GateError
from penstock_retrain.gates.examples import Batch, Contender
from penstock_retrain.gates.policy import GatesPolicy
from penstock_retrain.gates.stage import GateStage
from penstock_retrain.jobs.policy import merged_document
from penstock_retrain.jobs.stages import Outcome, Progress, StageBroken
from penstock_retrain.jobs.states import Cause, CauseKind, Job, JobState
from penstock_retrain.registry.versions import AliasChange, Made
from tests.unit.retrain.gates.gate_places import CANDIDATE, CHAMPION, Told, write_suite
from tests.unit.retrain.jobs.places import Place

POLICY = merged_document("gates: {suites: [sums.yaml]}")


class Both:
    def candidate(self, job: Job) -> Contender:
        return CANDIDATE

    def champion(self, job: Job) -> Contender | None:
        return CHAMPION


def job(policy: str = POLICY, **results: dict[str, object]) -> Job:
    found = {JobState(name): facts for name, facts in results.items()}
    cause = Cause(CauseKind.MANUAL)
    return Job("job-1", "triage", cause, policy, 0, 0, JobState.EVALUATING, results=found)


def stage(folder: Path, told: Told) -> GateStage:
    write_suite(folder / "suites")
    return GateStage(folder / "gates", folder / "suites", Both(), lambda policy: told)


async def test_a_good_candidate_goes_on_with_its_report(tmp_path: Path) -> None:
    said: list[Progress] = []
    result = await stage(tmp_path, Told()).run(job(), said.append)
    assert result.outcome is Outcome.DONE
    assert result.facts["passed"] is True
    assert {row["verdict"] for row in result.facts["rows"]} == {"pass"}
    json.dumps(result.facts)
    for name, path in result.facts["attachments"].items():
        assert (tmp_path / "gates" / "job-1" / name).read_text() != ""
        assert Path(path) == tmp_path / "gates" / "job-1" / name
    assert said[-1] == Progress("suite sums: 500 of 500 answers", 500, 500, 0.0)
    assert said[0].eta_s is None


async def test_a_bad_candidate_is_refused_with_the_rules_that_it_missed(tmp_path: Path) -> None:
    result = await stage(tmp_path, Told({"candidate": lambda batch, n: "?"})).run(
        job(), lambda progress: None
    )
    assert result.outcome is Outcome.REFUSED
    assert result.reason.startswith("gate: sums, all: exact_match: at least 0.8 (fail: 0, 0 to ")
    assert result.facts["passed"] is False


async def test_too_few_examples_refuse_too(tmp_path: Path) -> None:
    made = stage(tmp_path, Told())
    write_suite(tmp_path / "suites", count=8)
    result = await made.run(job(), lambda progress: None)
    assert result.outcome is Outcome.REFUSED
    assert "not enough examples" in result.reason
    assert result.facts["verdict"] == "not enough examples"


async def test_killed_and_run_again_it_asks_for_the_rest(tmp_path: Path) -> None:
    first, second = Told(die_after=20), Told()
    with pytest.raises(ConnectionResetError):
        await stage(tmp_path, first).run(job(), lambda progress: None)
    result = await stage(tmp_path, second).run(job(), lambda progress: None)
    assert result.outcome is Outcome.DONE
    assert len(second.asked) == 30


async def test_what_trying_again_does_not_help_is_told_apart(tmp_path: Path) -> None:
    made = stage(tmp_path, Told())
    for policy, told in (
        ("gates: {suites: [none.yaml]}", "cannot be read"),
        ("gates: {alpha: 2}", "gates.alpha: Input should be less than"),
        ("gates: {suites: [sums.yaml, sums.yaml]}", "another one is named sums"),
        ("", "name one with --dataset"),  # the default suite, of a job without a dataset
    ):
        with pytest.raises(StageBroken, match=told):
            await made.run(job(merged_document(policy)), lambda progress: None)

    def broken(batch: Batch, index: int) -> str:
        raise AnswersError("out of memory")

    # It may be free again in a while: the runner tries again.
    with pytest.raises(AnswersError):
        await stage(tmp_path, Told({"candidate": broken})).run(job(), lambda progress: None)


async def test_what_nobody_needs_is_removed_and_the_report_stays(tmp_path: Path) -> None:
    made = stage(tmp_path, Told())
    await made.run(job(), lambda progress: None)
    rejected = dataclasses.replace(job(), state=JobState.REJECTED)
    for _ in range(2):
        await made.clean(rejected)
        left = sorted(path.name for path in (tmp_path / "gates" / "job-1").iterdir())
        assert left == ["gates.html", "gates.json"]
    await made.clean(dataclasses.replace(rejected, id="job-2"))


def model(path: Path, text: str = "w") -> Path:
    path.mkdir(parents=True)
    (path / "config.json").write_text("{}")
    (path / "model.safetensors").write_text(text)
    return path


def adapter(path: Path, text: str = "a") -> Path:
    path.mkdir(parents=True)
    (path / "adapter_config.json").write_text("{}")
    (path / "adapter_model.safetensors").write_text(text)
    return path


def test_who_is_judged_and_beside_whom(tmp_path: Path) -> None:
    place = Place("sqlite://")
    base = model(tmp_path / "base")
    trained = adapter(tmp_path / "run")
    contenders = RegistryContenders(
        place.registry, tmp_path / "adapters", Bases({"triage": base}, tmp_path / "models")
    )
    facts: dict[str, object] = {"kind": "adapter", "base_model": "triage", "dir": str(trained)}
    asked = job(training=facts)
    candidate = contenders.candidate(asked)
    assert (candidate.model, candidate.adapter) == (base, trained)
    # No job has made a champion yet: the base model as it is.
    champion = contenders.champion(asked)
    assert (champion.name, champion.model, champion.adapter) == ("triage", base, None)
    version = place.registry.create_version("triage", "job-0", Made("adapter", "triage"), 1)
    place.registry.set_alias(AliasChange("triage", "champion", 0, 0, version.version, 2))
    with pytest.raises(GateError, match="is no PEFT adapter"):
        contenders.champion(asked)
    adapter(tmp_path / "adapters" / version.name)
    found = contenders.champion(asked)
    assert found.adapter == tmp_path / "adapters" / version.name
    # The same weights, wherever they lie and whatever card and manifest lie beside them.
    (tmp_path / "adapters" / version.name / "README.md").write_text("# card")
    write_manifest(tmp_path / "adapters" / version.name)
    assert contenders.champion(asked).digest == found.digest == candidate.digest
    full = model(tmp_path / "full", "other")
    asked = job(training={"kind": "full", "base_model": "triage", "dir": str(full)})
    assert contenders.candidate(asked).model == full
    assert contenders.candidate(asked).digest != contender_of("base", base).digest
    asked = job(training={"kind": "adapter", "base_model": "other", "dir": str(trained)})
    with pytest.raises(GateError, match=r"other has no .* name it in PENSTOCK_RETRAIN_BASE_MODELS"):
        contenders.candidate(asked)
    with pytest.raises(GateError, match="says no dir"):
        contenders.candidate(job())
    place.close()


def test_a_policy_has_defaults() -> None:
    assert GatesPolicy.parse("") == GatesPolicy(suites=("default",), alpha=0.05)
    for text in ("gates: 3", "- a", "gates: {suites: []}", "gates: {suits: [a]}", "a: ["):
        with pytest.raises(GateError):
            GatesPolicy.parse(text)
