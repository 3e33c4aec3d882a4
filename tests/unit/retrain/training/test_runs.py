"""A training's directory: what a killed process left is found, what is another's is not."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from penstock_retrain.jobs.stages import Progress
from penstock_retrain.training.errors import TrainingFailed
from penstock_retrain.training.request import Kind, Trained, TrainingRequest
from penstock_retrain.training.runs import ProgressLog, Run
from tests.unit.retrain.training.asked import request, trained


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "trainings" / "job-1")


def finish(run: Run, asked: TrainingRequest) -> Trained:
    run.half.mkdir(parents=True)
    (run.half / "adapter_model.safetensors").write_bytes(b"weights")
    run.finish(asked, trained(asked))
    return trained(asked)


def test_a_request_and_its_result_cross_processes(run: Run) -> None:
    asked = request({"method": "dora", "lora": {"rank": 4}, "learning_rate": 0.001})
    run.prepare(asked)
    assert Run(run.path).request() == asked
    assert run.trained(asked) is None
    made = finish(run, asked)
    assert Run(run.path).trained(asked) == made
    assert (run.result / "adapter_model.safetensors").stat().st_mode & 0o777 == 0o644


def test_training_json_says_what_it_was_made_of_and_no_path(run: Run) -> None:
    asked = request({"seed": 11})
    run.prepare(asked)
    finish(run, asked)
    text = (run.result / "training.json").read_text()
    said = json.loads(text)
    assert "/models" not in text
    assert "/datasets" not in text
    assert (said["seed"], said["dataset_digest"], said["kind"]) == (11, "d" * 64, "adapter")
    assert said["policy"]["method"] == "lora"
    assert said["code"] == dict(asked.code)
    assert said["metrics"]["held_out_loss_before"] == 2.0


def test_the_same_request_goes_on_with_what_is_there(run: Run) -> None:
    run.prepare(request())
    (run.checkpoints / "checkpoint-10").mkdir(parents=True)
    run.keep_before({"held_out_loss": 2.0})
    run.refuse("the disk was full")
    moved = request(base_path=Path("/elsewhere"), code={"source": "newer"})
    run.prepare(moved)
    assert (run.checkpoints / "checkpoint-10").is_dir()
    assert run.before() == {"held_out_loss": 2.0}
    assert run.refusal() is None  # a new attempt
    assert run.request() == moved


@pytest.mark.parametrize(
    "other", [request({"seed": 8}), request(dataset_digest="e" * 64), request(base_model="larger")]
)
def test_another_request_begins_anew(run: Run, other: TrainingRequest) -> None:
    run.prepare(request())
    (run.checkpoints / "checkpoint-10").mkdir(parents=True)
    run.keep_before({"held_out_loss": 2.0})
    finish(run, request())
    assert run.trained(other) is None
    run.prepare(other)
    assert not run.checkpoints.exists()
    assert not run.result.exists()
    assert run.before() is None
    assert run.request() == other


def test_a_directory_without_a_request_begins_anew(run: Run) -> None:
    (run.checkpoints / "checkpoint-10").mkdir(parents=True)
    with pytest.raises(TrainingFailed, match="no request"):
        run.request()
    run.prepare(request())
    assert not run.checkpoints.exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 2}', '{"format": 1}'])
def test_half_a_result_is_none(run: Run, text: str) -> None:
    run.prepare(request())
    run.result.mkdir()
    (run.result / "training.json").write_text(text)
    assert run.trained(request()) is None


def test_why_it_is_impossible(run: Run) -> None:
    run.prepare(request())
    assert run.refusal() is None
    run.refuse("training.method: dpo learns from pairs")
    assert run.refusal() == "training.method: dpo learns from pairs"


def test_progress_is_read_as_it_is_written(run: Run) -> None:
    run.prepare(request())
    log = ProgressLog(run.progress)
    assert log.new() == []
    first = Progress("training", 1, 30, 12.5, {"loss": 2.0})
    run.report(first)
    assert log.new() == [first]
    assert log.new() == []
    with run.progress.open("ab") as file:
        file.write(b'{"at_s": 1, "mess')  # half of it: the rest comes
    assert log.new() == []
    with run.progress.open("ab") as file:
        file.write(b'age": "training"}\n{"at_s": 1, "mes')
    assert [each.message for each in log.new()] == ["training"]
    run.report(first)  # behind the half that a killed process left
    run.report(first)
    assert log.new() == [first]
    assert ProgressLog(run.progress).new() == []  # what was told before is not told again


def test_one_process_works_on_it_at_a_time(run: Run) -> None:
    run.prepare(request())
    with run.held(0):
        held = run.worker_pid
        with pytest.raises(TrainingFailed, match="another process"), Run(run.path).held(0):
            pass
    assert held is not None
    with run.held(0):
        assert run.worker_pid == held


def test_another_request_takes_nothing_from_who_works(run: Run) -> None:
    run.prepare(request())
    (run.checkpoints / "checkpoint-10").mkdir(parents=True)
    other = Run(run.path)
    with run.held(0):
        with pytest.raises(TrainingFailed, match="another process"):
            other.prepare(request(base_model="larger"))
        with pytest.raises(TrainingFailed, match="another process"):
            other.remove()
    assert (run.checkpoints / "checkpoint-10").is_dir()
    assert run.request() == request()
    waiting = (run.path / "lock").stat().st_ino
    other.prepare(request(base_model="larger"))
    other.remove()
    assert other.worker_pid is None  # to remove is no work
    # Who waited for the file waits for the one that is there.
    assert (run.path / "lock").stat().st_ino == waiting


def test_who_comes_second_says_so_and_waits(run: Run) -> None:
    run.prepare(request())
    log, had = ProgressLog(run.progress), threading.Event()

    def second() -> None:
        with Run(run.path).held(60):
            had.set()

    thread = threading.Thread(target=second)
    with run.held(0):
        thread.start()
        while not (said := log.new()):
            time.sleep(0.01)
        assert not had.is_set()
    thread.join()
    assert had.is_set()
    assert [each.message for each in said] == ["waiting for another process that trains here"]


def test_a_killed_process_holds_nothing(run: Run) -> None:
    run.prepare(request())
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from penstock_retrain.training.runs import Run\n"
        "with Run(Path(sys.argv[1])).held(0): os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    died = subprocess.run([sys.executable, "-c", code, str(run.path)], check=False)
    assert died.returncode == -9
    with run.held(0):
        pass


def test_weights_go_and_what_was_done_stays(run: Run) -> None:
    asked = request()
    run.remove()  # there is nothing yet
    run.prepare(asked)
    run.report(Progress("training", 1, 30))
    (run.checkpoints / "checkpoint-10").mkdir(parents=True)
    run.keep_before({"held_out_loss": 2.0})
    finish(run, asked)
    for _ in range(2):
        run.remove()
        left = sorted(path.name for path in run.path.iterdir())
        assert left == ["lock", "progress.jsonl", "request.json", "training.json"]
    assert Trained.of(json.loads((run.path / "training.json").read_text())).kind is Kind.ADAPTER
