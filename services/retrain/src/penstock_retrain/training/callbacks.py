"""What happens in the trainer's course: progress, markers of whole checkpoints, an early end."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from penstock_retrain.jobs.stages import Progress, Report
from penstock_retrain.training.checkpoints import PREFIX, held_out_losses, mark
from penstock_retrain.training.pace import Pace, Point
from penstock_retrain.training.plan import Plan, stops
from penstock_retrain.training.policy import Evaluation

__all__ = ["trainer_callback"]

# What the trainer calls it, and what it is called in progress.
_NAMES = {
    "loss": "loss",
    "eval_loss": "held_out_loss",
    "rewards/margins": "margin",
    "learning_rate": "learning_rate",
}


def trainer_callback(
    plan: Plan,
    evaluation: Evaluation,
    report: Report,
    clock_s: Callable[[], float] = time.monotonic,
) -> Any:
    """A `transformers.TrainerCallback`.

    Args:
        plan: The course.
        evaluation: When it has learnt enough.
        report: Told how far it is, at each log and each measurement.
        clock_s: Seconds by a clock that only goes forward.
    """
    from transformers import TrainerCallback

    class Watch(TrainerCallback):  # type: ignore[misc] # transformers is untyped here
        """See `trainer_callback`."""

        def __init__(self) -> None:
            self._pace = Pace(plan.steps)
            self._metrics: dict[str, float] = {}

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self._pace.add(self._point(state))

        def on_log(
            self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any
        ) -> None:
            said = {_NAMES[name]: float(logs[name]) for name in _NAMES if name in (logs or {})}
            if not said:
                return
            self._pace.add(self._point(state))
            self._metrics |= said
            speed = self._pace.tokens_per_s
            if speed is not None:
                self._metrics["tokens_per_s"] = speed
            metrics = dict(self._metrics)
            report(Progress("training", state.global_step, plan.steps, self._pace.eta_s, metrics))

        def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
            losses = held_out_losses({"log_history": state.log_history})
            if stops(losses, evaluation.patience, evaluation.min_improvement):
                # The checkpoint of this step is what whoever continues sees it by.
                control.should_training_stop = control.should_save = True
            return control

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            mark(Path(args.output_dir) / f"{PREFIX}{state.global_step}")

        def _point(self, state: Any) -> Point:
            return Point(clock_s(), state.global_step, int(state.num_input_tokens_seen))

    return Watch()
