"""How many steps a training has, when it measures, and when it has learnt enough. Pure."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from penstock_retrain.training.policy import TrainingPolicy

__all__ = ["Plan", "arguments", "plan_of", "stops"]

MEASUREMENTS = 10
LOGS = 200


@dataclasses.dataclass(frozen=True)
class Plan:
    """A training's course.

    Attributes:
        steps: Optimiser steps in all.
        every_steps: How often it measures on held-out rows and writes a checkpoint.
        log_steps: How often it tells its loss.
        warmup_steps: In which the learning rate rises.
    """

    steps: int
    every_steps: int
    log_steps: int
    warmup_steps: int


def plan_of(policy: TrainingPolicy, rows: int) -> Plan:
    """The course of a training on so many rows, one at least.

    The last batch of an epoch may be a smaller one; part of an epoch counts by whole steps.
    """
    per_epoch = math.ceil(rows / policy.batch_size)
    steps = max(1, round(per_epoch * policy.epochs))
    if policy.max_steps is not None:
        steps = min(steps, policy.max_steps)
    every = policy.evaluation.every_steps or math.ceil(steps / MEASUREMENTS)
    return Plan(
        steps=steps,
        every_steps=min(every, steps),
        log_steps=max(1, steps // LOGS),
        warmup_steps=math.ceil(steps * policy.warmup),
    )


def stops(losses: Sequence[float], patience: int, min_improvement: float = 0.0) -> bool:
    """Whether training has learnt enough: the last `patience` measurements were no better.

    Follows from the measurements alone, so that whoever continues a training decides the same.

    Args:
        losses: Of the held-out rows, in nats, the oldest first.
        patience: How many may be no better; 0: it never ends early.
        min_improvement: By how much a loss has to be below the best to be better.
    """
    if patience <= 0:
        return False
    best, since = math.inf, 0
    for loss in losses:
        if loss < best - min_improvement:
            best, since = loss, 0
        else:
            since += 1
    return since >= patience


def arguments(
    policy: TrainingPolicy, plan: Plan, *, held_out: bool, gpu: bool, bfloat16: bool
) -> dict[str, Any]:
    """What `transformers.TrainingArguments` are told, whichever trainer it is; no paths.

    Args:
        policy: Hyperparameters.
        plan: The course.
        held_out: Whether there are rows to measure on.
        gpu: Whether it runs on one.
        bfloat16: What the arithmetic is done in, else float32.
    """
    measured = {
        "eval_strategy": "steps",
        "eval_steps": plan.every_steps,
        "metric_for_best_model": "eval_loss",
        "greater_is_better": False,
    }
    return {
        "max_steps": plan.steps,
        "per_device_train_batch_size": policy.at_once,
        "per_device_eval_batch_size": policy.at_once,
        "gradient_accumulation_steps": policy.batch_size // policy.at_once,
        "learning_rate": policy.peak_rate,
        "lr_scheduler_type": policy.schedule,
        "warmup_steps": plan.warmup_steps,
        "weight_decay": policy.weight_decay,
        "max_grad_norm": policy.max_grad_norm,
        "gradient_checkpointing": policy.gradient_checkpointing,
        "seed": policy.seed,
        "data_seed": policy.seed,
        "bf16": bfloat16,
        "use_cpu": not gpu,
        "dataloader_pin_memory": gpu,
        "logging_steps": plan.log_steps,
        "logging_first_step": True,
        "include_num_input_tokens_seen": "non_padding",
        "save_strategy": "steps",
        "save_steps": plan.every_steps,
        # The best and the last: one to keep, one to go on from.
        "save_total_limit": 2,
        "report_to": "none",
        "disable_tqdm": True,
        **(measured if held_out else {"eval_strategy": "no"}),
    }
