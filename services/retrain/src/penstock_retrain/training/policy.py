"""How a model is trained: the part `training` of a retraining policy. Pure.

training:
  method: lora
  epochs: 3
  batch_size: 16
  learning_rate: 0.0002
  lora: {rank: 16}
  evaluation: {patience: 2}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from penstock.documents import fault_lines
from penstock_retrain.training.errors import TrainingImpossible

__all__ = ["Dpo", "Evaluation", "Imported", "Lora", "MethodName", "Precision", "TrainingPolicy"]

Share = Annotated[float, Field(ge=0, lt=1)]


class MethodName(StrEnum):
    """How weights are changed; `training.methods` has a file for each that trains."""

    LORA = "lora"  # an adapter of low rank beside frozen weights
    DORA = "dora"  # the same with magnitudes of their own, merged into full weights
    FULL = "full"  # all weights
    DPO = "dpo"  # an adapter, from pairs of a better and a worse answer
    IMPORTED = "imported"  # not here: an adapter that was trained elsewhere


# Where a policy names no learning rate: usual peaks for models of some billion parameters. Smaller
# models take higher ones.
_RATES = {
    MethodName.LORA: 2e-4,
    MethodName.DORA: 2e-4,
    MethodName.FULL: 2e-5,
    MethodName.DPO: 5e-6,
}


class Precision(StrEnum):
    """What the arithmetic is done in."""

    AUTO = "auto"  # bfloat16 where a GPU has it, else float32
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Lora(_Part):
    """The adapter's shape: of lora, dora and dpo.

    Attributes:
        rank: Of its matrices; engines refuse more than their `max_lora_rank`.
        alpha: What its product is multiplied with, over the rank; None takes twice the rank.
        dropout: Of its input while it is trained.
        modules: Names of the layers that it changes; `all-linear` is all but the head.
    """

    rank: int = Field(default=16, ge=1, le=512)
    alpha: int | None = Field(default=None, ge=1)
    dropout: Share = 0.0
    modules: tuple[str, ...] = Field(default=("all-linear",), min_length=1)

    @model_validator(mode="after")
    def _all_or_some(self) -> Self:
        if "all-linear" in self.modules and len(self.modules) > 1:
            raise ValueError("modules is `all-linear` alone, or names layers")
        return self

    @property
    def scale(self) -> int:
        """What the product of the matrices is multiplied with, before it is divided by the rank."""
        return 2 * self.rank if self.alpha is None else self.alpha


class Dpo(_Part):
    """Direct preference optimisation (Rafailov et al. 2023).

    Attributes:
        beta: How dear it is to leave the reference, which is the base model.
        sft_weight: How much the loss of the better answer itself counts beside: it keeps that
            answer from becoming less likely while the worse one becomes so faster.
    """

    beta: float = Field(default=0.1, gt=0, le=10)
    sft_weight: float = Field(default=0.0, ge=0, le=10)


class Imported(_Part):
    """Weights that were trained elsewhere.

    Attributes:
        adapter: A directory of PEFT's format below the service's `imports_dir`, by its name.
    """

    adapter: str = Field(default="", pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]{0,127})?$")


class Evaluation(_Part):
    """What is measured on the validation split.

    Attributes:
        every_steps: How often loss is measured there and a checkpoint is written; None: ten times.
        answers: How many of its questions are answered greedily, before and after; 0 for none.
        answer_tokens: The longest answer.
        patience: Training ends after so many measurements without a lower loss; 0: it does not.
        min_improvement: By how much lower, in nats, at least.
    """

    every_steps: int | None = Field(default=None, ge=1)
    answers: int = Field(default=200, ge=0, le=10_000)
    answer_tokens: int = Field(default=128, ge=1, le=8192)
    patience: int = Field(default=0, ge=0, le=1000)
    min_improvement: float = Field(default=0.0, ge=0)


class TrainingPolicy(_Part):
    """The policy; every field has a default, so an empty one is valid.

    Attributes:
        method: How weights are changed.
        base_model: The engine's model that is changed; empty takes the one that the champion of the
            job's model answers with, or where it has no route the job's model's name.
        epochs: Passes over the training rows.
        max_steps: Optimiser steps at most; None for as many as the epochs have.
        batch_size: Rows per optimiser step.
        micro_batch_size: Rows that are in memory at once; None takes the whole batch.
        learning_rate: The peak, after the warm-up; None takes the method's usual one.
        schedule: How it falls from there.
        warmup: Share of the steps in which it rises.
        weight_decay: Of AdamW.
        max_grad_norm: Gradients are scaled down to it.
        max_tokens: Rows with longer question and answer are left out, never cut.
        gradient_checkpointing: Computes activations twice and keeps fewer in memory.
        precision: What the arithmetic is done in.
        seed: Of the adapter's beginning, of dropout and of the order.
    """

    method: MethodName = MethodName.LORA
    base_model: str = ""
    epochs: float = Field(default=3, gt=0, le=1000)
    max_steps: int | None = Field(default=None, ge=1, le=10_000_000)
    batch_size: int = Field(default=16, ge=1, le=65_536)
    micro_batch_size: int | None = Field(default=None, ge=1)
    learning_rate: float | None = Field(default=None, gt=0, le=1)
    schedule: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    warmup: Share = 0.03
    weight_decay: float = Field(default=0.0, ge=0, le=1)
    max_grad_norm: float = Field(default=1.0, gt=0)
    max_tokens: int = Field(default=1024, ge=8, le=1_000_000)
    gradient_checkpointing: bool = False
    precision: Precision = Precision.AUTO
    seed: int = Field(default=7, ge=0, le=2**32 - 1)
    lora: Lora = Lora()
    dpo: Dpo = Dpo()
    imported: Imported = Imported()
    evaluation: Evaluation = Evaluation()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.micro_batch_size is not None and self.batch_size % self.micro_batch_size:
            raise ValueError(
                f"batch_size ({self.batch_size}) is no multiple of micro_batch_size "
                f"({self.micro_batch_size})"
            )
        if self.method is MethodName.IMPORTED and not self.imported.adapter:
            raise ValueError(
                "method imported needs imported.adapter, a directory's name below "
                "PENSTOCK_RETRAIN_IMPORTS_DIR"
            )
        return self

    @property
    def peak_rate(self) -> float:
        """The learning rate after the warm-up; 0 where nothing is trained."""
        return _RATES.get(self.method, 0.0) if self.learning_rate is None else self.learning_rate

    @property
    def at_once(self) -> int:
        """Rows that are in memory at once."""
        return self.batch_size if self.micro_batch_size is None else self.micro_batch_size

    @classmethod
    def of(cls, written: Mapping[str, Any]) -> TrainingPolicy:
        """A policy as YAML or JSON has it.

        Raises:
            TrainingImpossible: It says what it must not; names each field.
        """
        try:
            return cls.model_validate(written)
        except ValidationError as error:
            raise TrainingImpossible(
                "; ".join(fault_lines(error, _names, below="training"))
            ) from None

    def parameters(self) -> dict[str, Any]:
        """All of it as JSON, defaults included."""
        return self.model_dump(mode="json")


def _names(path: Sequence[str]) -> list[str]:
    sections: Mapping[str, type[BaseModel]] = {
        "lora": Lora,
        "dpo": Dpo,
        "imported": Imported,
        "evaluation": Evaluation,
    }
    model = sections.get(path[0], TrainingPolicy) if path else TrainingPolicy
    return sorted(model.model_fields)
