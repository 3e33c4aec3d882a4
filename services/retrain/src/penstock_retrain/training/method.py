"""What a method of training is, for whoever writes one: a file in `methods`, named in METHODS."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from penstock_retrain.dataset.examples import Example
from penstock_retrain.training.models import Device
from penstock_retrain.training.plan import Plan, arguments
from penstock_retrain.training.policy import TrainingPolicy
from penstock_retrain.training.request import Kind, TrainingRequest
from penstock_retrain.training.rows import Tokenizer

__all__ = ["Method", "Setup"]


@dataclasses.dataclass(frozen=True)
class Setup:
    """What a method trains with.

    Attributes:
        request: What is asked.
        plan: The course.
        tokenizer: The base model's.
        train: Rows to learn from, as the method made them.
        held_out: Rows to measure on while it trains; may be empty.
        device: What it computes on.
        checkpoints: Where the trainer writes them.
        callbacks: The trainer's, of transformers.
    """

    request: TrainingRequest
    plan: Plan
    tokenizer: Any
    train: Sequence[Any]
    held_out: Sequence[Any]
    device: Device
    checkpoints: Path
    callbacks: Sequence[Any]

    @property
    def policy(self) -> TrainingPolicy:
        """Hyperparameters."""
        return self.request.policy

    def arguments(self) -> dict[str, Any]:
        """What the trainer's configuration is told, whichever trainer it is."""
        common = arguments(
            self.policy,
            self.plan,
            held_out=bool(self.held_out),
            gpu=self.device.gpu,
            bfloat16=self.device.bfloat16,
        )
        return {"output_dir": str(self.checkpoints), **common}


class Method(Protocol):
    """A way of changing weights. Has no state; blocks; imports torch and the like when called."""

    kind: Kind
    # What a row has to have, for people, where there are none.
    needs: str

    def rows(
        self, examples: Sequence[Example], tokenizer: Tokenizer, max_tokens: int
    ) -> tuple[Sequence[Any], Counter[str]]:
        """What it learns from and is measured on, and how many rows were left out, by reason."""
        ...

    def trainer(self, setup: Setup) -> Any:
        """A `transformers.Trainer` with the base model, which writes whole checkpoints."""
        ...

    def export(self, setup: Setup, checkpoint: Path, out: Path) -> None:
        """Writes a checkpoint's weights as engines load them, into an empty directory."""
        ...

    def load(self, setup: Setup, exported: Path) -> Any:
        """The model as it was written, ready to be measured."""
        ...

    def measure(self, setup: Setup, model: Any) -> dict[str, float]:
        """Numbers of a model on the held-out rows; empty where there are none."""
        ...
