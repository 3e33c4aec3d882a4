"""Real training of the triage model on the CPU: what each method is there for, and kills.

The rule by which tickets have a priority has changed; what the old rule says are the answers that
were rejected.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from examples.triage.evaluate import MODEL
from penstock_retrain.bases import Bases
from penstock_retrain.dataset.writing import Dataset
from penstock_retrain.jobs.stages import Progress, StageBroken, StageResult
from penstock_retrain.jobs.states import Cause, CauseKind, Job, JobState
from penstock_retrain.training import checkpoints
from penstock_retrain.training.errors import TrainingFailed, TrainingImpossible
from penstock_retrain.training.fitting import fit
from penstock_retrain.training.methods import METHODS
from penstock_retrain.training.request import Kind, Resources, Trained, TrainingRequest
from penstock_retrain.training.runs import Run, ray_folder
from penstock_retrain.training.stage import TrainingStage
from tests.integration.triage_datasets import asked, write_triage
from tests.unit.retrain.training.asked import KeepingDesk

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(900),
    # torch, TRL and PEFT warn of what they do to each other.
    pytest.mark.filterwarnings("ignore"),
]

# For so small a model rates are higher than usual, as in examples/triage/adapter.py.
QUICK: dict[str, Any] = {
    "epochs": 1,
    "batch_size": 24,
    "learning_rate": 0.01,
    "lora": {"rank": 8},
    "evaluation": {"every_steps": 10, "answers": 60, "answer_tokens": 48},
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_triage(tmp_path_factory.mktemp("dataset") / "job-1", train=720, held_out=60)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As Ray gives a process with one core; with more they wait for each other on shared cores."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Fitted:
    """A training that was done in this process."""

    def __init__(self, place: Path, request: TrainingRequest) -> None:
        self.run = Run(place)
        self.run.prepare(request)
        self.said: list[Progress] = []
        method = METHODS[request.policy.method]
        self.trained: Trained = fit(request, method, self.run, self.said.append)

    @property
    def metrics(self) -> dict[str, float]:
        return dict(self.trained.metrics)

    @property
    def losses(self) -> list[float]:
        return [each.metrics["loss"] for each in self.said if "loss" in each.metrics]

    def learnt(self) -> None:
        """Loss fell, on rows that it saw and on those that it did not; more answers are right."""
        found = self.metrics
        assert sum(self.losses[-5:]) < 0.7 * sum(self.losses[:5])
        assert found["loss"] < found["loss_first"]
        assert found["held_out_loss"] < 0.7 * found["held_out_loss_before"]
        assert found["held_out_token_accuracy"] > found["held_out_token_accuracy_before"]
        assert found["held_out_exact_match"] > found["held_out_exact_match_before"] + 0.1


def test_a_lora_adapter_learns_the_changed_rule(dataset: Dataset, tmp_path: Path) -> None:
    fitted = Fitted(tmp_path, asked(dataset, QUICK))
    fitted.learnt()
    assert (fitted.trained.kind, fitted.trained.steps) == (Kind.ADAPTER, 30)
    result = fitted.run.result
    assert sorted(path.name for path in result.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "training.json",
    ]
    config = json.loads((result / "adapter_config.json").read_text())
    assert (config["r"], config["use_dora"]) == (8, False)
    assert config["base_model_name_or_path"] == "triage"  # and no path of this machine
    told = [each for each in fitted.said if each.message == "training" and each.step > 1]
    assert told[-1].step == told[-1].steps == 30
    assert all(each.metrics["tokens_per_s"] > 0 for each in told)
    assert all(each.eta_s is not None for each in told)
    assert told[-1].eta_s == 0


def test_dora_makes_whole_weights_that_load_again(dataset: Dataset, tmp_path: Path) -> None:
    fitted = Fitted(tmp_path, asked(dataset, {**QUICK, "method": "dora"}))
    fitted.learnt()
    assert fitted.trained.kind is Kind.FULL
    whole(fitted.run.result)
    adapter = json.loads(next(fitted.run.checkpoints.glob("*/adapter_config.json")).read_text())
    assert adapter["use_dora"]


def test_full_fine_tuning_makes_whole_weights_that_load_again(
    dataset: Dataset, tmp_path: Path
) -> None:
    fitted = Fitted(tmp_path, asked(dataset, {**QUICK, "method": "full", "learning_rate": 0.002}))
    fitted.learnt()
    assert fitted.trained.kind is Kind.FULL
    whole(fitted.run.result)


def whole(directory: Path) -> None:
    """The directory is a model of its own, in the type of its base, and nothing is pickled."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    names = {path.name for path in directory.iterdir()}
    assert {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"} <= names
    assert not {name for name in names if name.endswith((".bin", ".pt", ".pth"))}
    model = AutoModelForCausalLM.from_pretrained(directory)
    assert model.dtype is torch.bfloat16
    base = AutoModelForCausalLM.from_pretrained(MODEL)
    assert not torch.equal(
        model.model.layers[0].self_attn.q_proj.weight, base.model.layers[0].self_attn.q_proj.weight
    )
    assert AutoTokenizer.from_pretrained(directory).chat_template


def test_dpo_raises_the_margin_of_what_was_preferred(dataset: Dataset, tmp_path: Path) -> None:
    policy = {**QUICK, "method": "dpo", "epochs": 2, "dpo": {"sft_weight": 0.2}}
    fitted = Fitted(tmp_path, asked(dataset, policy))
    found = fitted.metrics
    assert found["held_out_margin"] > found["held_out_margin_before"] + 1
    assert found["held_out_margin"] > 0 > found["held_out_margin_before"]  # the old rule was right
    assert found["held_out_preferred"] > 0.7 > found["held_out_preferred_before"]
    assert fitted.trained.left_out["no_preference"] > 0  # where both rules say the same
    assert fitted.trained.kind is Kind.ADAPTER
    margins = [each.metrics["margin"] for each in fitted.said if "margin" in each.metrics]
    assert margins[-1] > margins[0]


def test_dpo_without_pairs_says_what_to_change(tmp_path: Path) -> None:
    few = write_triage(tmp_path / "dataset", train=1, held_out=1)
    request = asked(few, {**QUICK, "method": "dpo", "max_tokens": 8})
    with pytest.raises(TrainingImpossible, match=r"training\.method: dpo learns from rows with"):
        Fitted(tmp_path / "run", request)


def test_a_dataset_that_is_another_one_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    import dataclasses

    request = dataclasses.replace(asked(dataset, QUICK), dataset_digest="0" * 64)
    with pytest.raises(TrainingImpossible, match="start another job"):
        Fitted(tmp_path, request)


def test_training_ends_early_where_nothing_more_is_learnt(dataset: Dataset, tmp_path: Path) -> None:
    policy = {
        **QUICK,
        "learning_rate": 1e-12,
        "evaluation": {"every_steps": 3, "answers": 0, "patience": 2, "min_improvement": 0.01},
    }
    request = asked(dataset, policy)
    fitted = Fitted(tmp_path, request)
    assert (fitted.trained.steps, fitted.trained.best_step) == (9, 3)
    assert "held_out_exact_match" not in fitted.metrics
    # Killed before the result was in its place: it has learnt enough still.
    (fitted.run.result / "training.json").unlink()
    again = fit(request, METHODS[request.policy.method], fitted.run, fitted.said.append)
    assert (again.steps, again.best_step) == (9, 3)
    assert not any(each.message.startswith("training from step 9") for each in fitted.said)


# --- Under Ray


SLOW = {**QUICK, "evaluation": {"every_steps": 6, "answers": 0}}


def job(dataset: Dataset, policy: dict[str, Any] = SLOW) -> Job:
    document = json.dumps({"training": policy})
    results = {JobState.DATASET: {"path": str(dataset.path), "digest": dataset.digest}}
    cause = Cause(CauseKind.MANUAL)
    return Job("job-1", "triage", cause, document, 0, 0, JobState.TRAINING, results=results)


class Place:
    """A stage in a directory, and the processes that it starts."""

    def __init__(self, path: Path) -> None:
        self.said: list[Progress] = []
        self.stage = TrainingStage(
            KeepingDesk(),
            path / "training",
            Resources(retries=1),
            Bases({"triage": MODEL}, path / "models"),
        )
        self.run = Run((path / "training" / "job-1").resolve())

    async def train(self, dataset: Dataset) -> StageResult:
        return await self.stage.run(job(dataset), self.said.append)

    def driver(self) -> psutil.Process | None:
        children = psutil.Process().children()
        return next(
            (c for c in children if "penstock_retrain.training.driver" in _command(c)), None
        )

    def step(self) -> int:
        last = checkpoints.last_whole(checkpoints.found(self.run.checkpoints))
        return 0 if last is None else last.step

    def begun_from(self) -> list[int]:
        lines = [json.loads(line) for line in self.run.progress.read_text().splitlines()]
        return [each["step"] for each in lines if each["message"].startswith("training from step")]


def _command(process: psutil.Process) -> list[str]:
    # One of another test's children may have ended, and nobody has asked how.
    try:
        return process.cmdline()
    except psutil.Error:
        return []


async def until(condition: Callable[[], object], task: asyncio.Task[Any] | None = None) -> None:
    async with asyncio.timeout(300):
        while not condition():
            if task is not None and task.done():
                task.result()
                raise AssertionError("it ended before it should have")
            await asyncio.sleep(0.01)


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    place = Place(tmp_path)
    yield place
    driver = place.driver()
    if driver is not None:
        driver.kill()
    await until(lambda: not alive(place.run.worker_pid))
    shutil.rmtree(ray_folder(place.run.path), ignore_errors=True)


def alive(pid: int | None) -> bool:
    if pid is None:
        return False
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


@pytest.fixture(scope="module")
def undisturbed(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    """The same training in one piece."""
    import torch

    torch.set_num_threads(1)
    return Fitted(tmp_path_factory.mktemp("undisturbed"), asked(dataset, SLOW))


def as_undisturbed(place: Place, result: StageResult, undisturbed: Fitted) -> None:
    """It ended with the same steps and the same weights."""
    import torch
    from safetensors.torch import load_file

    assert result.facts["steps"] == undisturbed.trained.steps == 30
    assert result.facts["best_step"] == undisturbed.trained.best_step
    name = "adapter_model.safetensors"
    one, other = (load_file(r / name) for r in (place.run.result, undisturbed.run.result))
    assert one.keys() == other.keys()
    for key in one:
        torch.testing.assert_close(one[key], other[key], rtol=1e-4, atol=1e-5)
    metrics = result.facts["metrics"]
    assert metrics["tokens"] == undisturbed.metrics["tokens"]
    assert metrics["held_out_loss"] == pytest.approx(undisturbed.metrics["held_out_loss"], rel=1e-3)


async def test_a_killed_process_is_started_again_and_goes_on(
    dataset: Dataset, place: Place, undisturbed: Fitted
) -> None:
    running = asyncio.create_task(place.train(dataset))
    await until(lambda: place.step() >= 6, running)
    first = place.run.worker_pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    result = await running
    assert place.run.worker_pid != first
    begun = place.begun_from()
    assert begun[0] == 0
    assert 6 <= begun[1] < 30
    as_undisturbed(place, result, undisturbed)
    steps = [each.step for each in place.said if each.message == "training"]
    assert steps[-1] == 30
    assert place.said[-1].metrics["held_out_loss"] < place.said[-1].metrics["held_out_loss_before"]
    # A finished one is not run again.
    again = await place.train(dataset)
    assert again == result
    assert place.begun_from() == begun
    await place.stage.clean(job(dataset))
    assert not place.run.result.exists()
    assert not ray_folder(place.run.path).exists()


async def test_when_ray_dies_the_next_attempt_goes_on(
    dataset: Dataset, place: Place, undisturbed: Fitted
) -> None:
    running = asyncio.create_task(place.train(dataset))
    await until(lambda: place.step() >= 6, running)
    worker, driver = place.run.worker_pid, place.driver()
    assert driver is not None
    head = [each for each in driver.children(recursive=True) if "gcs_server" in each.name()]
    raylets = [each for each in driver.children(recursive=True) if each.name() == "raylet"]
    assert head
    for process in (*head, *raylets):
        process.kill()
    with pytest.raises(TrainingFailed, match="without a result"):
        await running
    await until(lambda: not alive(worker))
    result = await place.train(dataset)
    begun = place.begun_from()
    assert begun[0] == 0
    # A worker may come to its end before it hears that its Ray is gone.
    assert len(begun) == 1 or 6 <= begun[1] < 30
    as_undisturbed(place, result, undisturbed)


async def test_an_aborted_training_leaves_no_process(dataset: Dataset, place: Place) -> None:
    running = asyncio.create_task(place.train(dataset))
    await until(lambda: place.run.worker_pid, running)
    driver = place.driver()
    assert driver is not None
    processes = [driver, *driver.children(recursive=True)]
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await until(lambda: not any(alive(each.pid) for each in processes))
    await place.stage.clean(job(dataset))
    assert not place.run.checkpoints.exists()


async def test_what_is_impossible_fails_the_job_at_once(dataset: Dataset, place: Place) -> None:
    policy = {**SLOW, "max_tokens": 8}
    with pytest.raises(StageBroken, match=r"too_long 7\d\d.* a higher training\.max_tokens"):
        await place.stage.run(job(dataset, policy), place.said.append)
