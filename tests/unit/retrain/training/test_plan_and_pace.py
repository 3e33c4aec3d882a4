"""How many steps, when to measure, when to stop, and how long it still takes."""

from __future__ import annotations

from typing import Any

import pytest

from penstock_retrain.training.pace import Pace, Point
from penstock_retrain.training.plan import Plan, arguments, plan_of, stops
from penstock_retrain.training.policy import TrainingPolicy


@pytest.mark.parametrize(
    ("written", "rows", "plan"),
    [
        ({}, 160, Plan(steps=30, every_steps=3, log_steps=1, warmup_steps=1)),
        ({}, 1, Plan(steps=3, every_steps=1, log_steps=1, warmup_steps=1)),
        ({"epochs": 0.5, "warmup": 0}, 170, Plan(6, 1, 1, 0)),  # of 11 steps in an epoch
        ({"epochs": 0.01}, 16, Plan(1, 1, 1, 1)),
        ({"max_steps": 1000, "warmup": 0.1}, 100_000, Plan(1000, 100, 5, 100)),
        ({"evaluation": {"every_steps": 50}}, 160, Plan(30, 30, 1, 1)),
        ({"batch_size": 64, "micro_batch_size": 8}, 128, Plan(6, 1, 1, 1)),
    ],
)
def test_a_plan(written: dict[str, Any], rows: int, plan: Plan) -> None:
    assert plan_of(TrainingPolicy.of(written), rows) == plan


@pytest.mark.parametrize(
    ("losses", "patience", "improvement", "ends"),
    [
        ([], 1, 0.0, False),
        ([3.0, 2.0, 1.0], 1, 0.0, False),
        ([3.0, 2.0, 2.0], 1, 0.0, True),  # as good is not better
        ([3.0, 2.0, 2.1, 1.9, 2.5], 2, 0.0, False),
        ([3.0, 2.0, 2.1, 2.2], 2, 0.0, True),
        ([3.0, 2.95, 2.91], 2, 0.1, True),  # from the best one, not from the one before
        ([3.0, 2.95, 2.85], 2, 0.1, False),
        ([3.0, 4.0, 5.0], 0, 0.0, False),
        ([3.0, float("nan"), float("nan")], 2, 0.0, True),
    ],
)
def test_an_early_end(losses: list[float], patience: int, improvement: float, ends: bool) -> None:
    assert stops(losses, patience, improvement) is ends


def test_pace_is_that_of_the_last_points() -> None:
    pace = Pace(steps=100, window=3)
    assert (pace.eta_s, pace.tokens_per_s) == (None, None)
    pace.add(Point(at_s=10.0, step=40, tokens=5000))  # continued from a checkpoint
    assert (pace.eta_s, pace.tokens_per_s) == (None, None)
    pace.add(Point(12.0, 44, 5400))
    assert (pace.eta_s, pace.tokens_per_s) == (28.0, 200.0)
    pace.add(Point(14.0, 48, 5800))
    pace.add(Point(24.0, 50, 6000))  # a measurement lay between: 12 s for 6 steps now
    assert (pace.eta_s, pace.tokens_per_s) == (100.0, 50.0)
    pace.add(Point(25.0, 100, 7000))
    assert pace.eta_s == 0.0


def test_a_clock_that_stands_gives_no_speed() -> None:
    pace = Pace(steps=10)
    pace.add(Point(1.0, 0, 0))
    pace.add(Point(1.0, 2, 100))
    assert (pace.eta_s, pace.tokens_per_s) == (0.0, None)


def test_what_the_trainer_is_told() -> None:
    policy = TrainingPolicy.of({"batch_size": 32, "micro_batch_size": 8, "learning_rate": 0.01})
    plan = plan_of(policy, 320)
    told = arguments(policy, plan, held_out=True, gpu=False, bfloat16=False)
    assert told["max_steps"] == plan.steps == 30
    assert (told["per_device_train_batch_size"], told["gradient_accumulation_steps"]) == (8, 4)
    assert (told["eval_steps"], told["save_steps"]) == (3, 3)  # the best step has a checkpoint
    assert (told["use_cpu"], told["bf16"], told["learning_rate"]) == (True, False, 0.01)
    unmeasured = arguments(policy, plan, held_out=False, gpu=True, bfloat16=True)
    assert unmeasured["eval_strategy"] == "no"
    assert "metric_for_best_model" not in unmeasured
    assert (unmeasured["use_cpu"], unmeasured["bf16"]) == (False, True)
