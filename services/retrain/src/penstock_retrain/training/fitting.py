"""Runs a method from its request to its result: the same course whichever it is.

Whatever is there of an earlier run is gone on from: what the base model measured, the last whole
checkpoint, and with it the order of the rows, the optimiser, the dice and the tokens counted.
"""

from __future__ import annotations

import dataclasses
import gc
import math
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from penstock.manifest import digest_of, file_digests
from penstock_retrain.dataset.errors import DatasetError
from penstock_retrain.dataset.examples import Split
from penstock_retrain.dataset.writing import read_split, verify_dataset
from penstock_retrain.jobs.stages import Progress, Report
from penstock_retrain.training import checkpoints
from penstock_retrain.training.callbacks import trainer_callback
from penstock_retrain.training.errors import TrainingFailed, TrainingImpossible
from penstock_retrain.training.method import Method, Setup
from penstock_retrain.training.models import Device, device_of, load_model, load_tokenizer
from penstock_retrain.training.plan import plan_of, stops
from penstock_retrain.training.request import Trained, TrainingRequest
from penstock_retrain.training.runs import Run

__all__ = ["fit"]

PACKAGES = ("accelerate", "peft", "torch", "transformers", "trl")


def fit(
    request: TrainingRequest,
    method: Method,
    run: Run,
    report: Report,
    *,
    gpus: float = 0.0,
    clock_s: Callable[[], float] = time.monotonic,
) -> Trained:
    """Trains, or goes on with it, and writes the result. Blocks until it is there.

    Args:
        request: What is asked.
        method: Its method.
        run: Its directory.
        report: Told how far it is.
        gpus: How many were reserved.
        clock_s: Seconds by a clock that only goes forward.

    Raises:
        TrainingImpossible: It cannot succeed; names the field and the remedy.
    """
    report(Progress("reading the dataset"))
    setup, left_out = _setup(request, method, run, device_of(request.policy.precision, gpus))
    before = _before(setup, method, run, report)
    began = clock_s()
    _train(setup, method, run, report)
    took_s = clock_s() - began
    last, best = _ended(run)
    after = _write(setup, method, run, best.path, report)
    trained = Trained(
        request_digest=request.digest,
        kind=method.kind,
        steps=last.step,
        best_step=best.step,
        rows=len(setup.train),
        held_out_rows=len(setup.held_out),
        left_out=dict(left_out),
        base_digest=digest_of(file_digests(request.base_path)),
        metrics=_metrics(before, after, last.state, took_s),
        packages={name: metadata.version(name) for name in PACKAGES},
    )
    run.finish(request, trained)
    report(Progress("trained", last.step, last.step, 0.0, trained.metrics))
    return trained


def _setup(
    request: TrainingRequest, method: Method, run: Run, device: Device
) -> tuple[Setup, Counter[str]]:
    policy = request.policy
    try:
        found = verify_dataset(request.dataset_path)
        splits = {
            s: list(read_split(request.dataset_path, s)) for s in (Split.TRAIN, Split.VALIDATION)
        }
    except DatasetError as error:
        raise TrainingImpossible(f"the dataset: {error}; make it anew with another job") from error
    if found.digest != request.dataset_digest:
        raise TrainingImpossible(
            f"{request.dataset_path} holds dataset {found.digest[:12]}, and the job's is "
            f"{request.dataset_digest[:12]}: start another job"
        )
    tokenizer = load_tokenizer(request.base_path)
    train, left_out = method.rows(splits[Split.TRAIN], tokenizer, policy.max_tokens)
    held_out, also = method.rows(splits[Split.VALIDATION], tokenizer, policy.max_tokens)
    left_out += also
    _check(request, method, len(train), len(held_out), left_out)
    setup = Setup(
        request=request,
        plan=plan_of(policy, len(train)),
        tokenizer=tokenizer,
        train=train,
        held_out=held_out,
        device=device,
        checkpoints=run.checkpoints,
        callbacks=(),
    )
    return setup, left_out


def _check(
    request: TrainingRequest, method: Method, train: int, held_out: int, left_out: Counter[str]
) -> None:
    reasons = ", ".join(f"{name} {count}" for name, count in left_out.items()) or "none"
    if not train:
        raise TrainingImpossible(
            f"training.method: {request.policy.method} learns from rows with {method.needs}, and "
            f"the dataset has none to train on; left out: {reasons}. Take another method, more "
            "labels, or a higher training.max_tokens"
        )
    if request.policy.evaluation.patience and not held_out:
        raise TrainingImpossible(
            "training.evaluation.patience: the dataset has no validation rows to measure on; set "
            f"dataset.split.validation above 0, or patience to 0. Left out: {reasons}"
        )


def _before(setup: Setup, method: Method, run: Run, report: Report) -> Mapping[str, float]:
    """What the base model measures, now or before this process was started."""
    found = run.before()
    if found is None:
        found = {}
        if setup.held_out:
            report(Progress("measuring the base model"))
            found = method.measure(setup, load_model(setup.request.base_path, setup.device))
        run.keep_before(found)
    return found


def _write(
    setup: Setup, method: Method, run: Run, checkpoint: Path, report: Report
) -> Mapping[str, float]:
    """Writes a checkpoint's weights; what they measure, loaded again."""
    steps = setup.plan.steps
    report(Progress("writing the weights", steps, steps))
    shutil.rmtree(run.half, ignore_errors=True)
    run.half.mkdir(parents=True)
    method.export(setup, checkpoint, run.half)
    if not setup.held_out:
        return {}
    report(Progress("measuring what was written", steps, steps))
    after = method.measure(setup, method.load(setup, run.half))
    _check_numbers(setup.request, after)
    return after


def _check_numbers(request: TrainingRequest, metrics: Mapping[str, float]) -> None:
    wrong = [name for name, value in metrics.items() if not math.isfinite(value)]
    if wrong:
        raise TrainingImpossible(
            f"training.learning_rate: {', '.join(wrong)} is no number after training with "
            f"{request.policy.peak_rate:g}; lower it"
        )


def _train(setup: Setup, method: Method, run: Run, report: Report) -> None:
    """Trains to the end, unless the checkpoints say that it has come to it."""
    import torch

    last = checkpoints.last_whole(checkpoints.found(run.checkpoints))
    wanted = setup.policy.evaluation
    if last is not None:
        losses = checkpoints.held_out_losses(last.state)
        learnt = stops(losses, wanted.patience, wanted.min_improvement)
        if last.step >= setup.plan.steps or learnt:
            return
    for each in checkpoints.found(run.checkpoints):
        if not each.whole:
            shutil.rmtree(each.path)
    begins = last.step if last is not None else 0
    report(Progress(f"training from step {begins}", begins, setup.plan.steps))
    trainer = method.trainer(_watched(setup, report))
    try:
        trainer.train(resume_from_checkpoint=str(last.path) if last is not None else None)
    except torch.OutOfMemoryError as error:
        raise TrainingImpossible(
            f"training.micro_batch_size: {setup.policy.at_once} rows at once do not fit into the "
            "GPU's memory; lower it, or set training.gradient_checkpointing"
        ) from error
    del trainer
    gc.collect()  # the optimiser's memory: the result is loaded beside what is left


def _watched(setup: Setup, report: Report) -> Setup:
    callback = trainer_callback(setup.plan, setup.policy.evaluation, report)
    return dataclasses.replace(setup, callbacks=(callback,))


def _ended(run: Run) -> tuple[checkpoints.Checkpoint, checkpoints.Checkpoint]:
    """The last checkpoint and the one with the weights to keep."""
    found = checkpoints.found(run.checkpoints)
    last, best = checkpoints.last_whole(found), checkpoints.best_step(found)
    for each in found:
        if last is not None and each.step == best and each.whole:
            return last, each
    raise TrainingFailed(f"the trainer left no whole checkpoint in {run.checkpoints}")


def _metrics(
    before: Mapping[str, float], after: Mapping[str, float], state: Mapping[str, Any], took_s: float
) -> dict[str, float]:
    losses = [float(each["loss"]) for each in state.get("log_history", ()) if "loss" in each]
    found = {**after, **{f"{name}_before": value for name, value in before.items()}}
    if losses:
        found |= {"loss_first": losses[0], "loss": losses[-1]}
    found["tokens"] = float(state.get("num_input_tokens_seen", 0))
    # Of the last process: one that was killed before it took its time with it.
    found["train_s"] = took_s
    return found
