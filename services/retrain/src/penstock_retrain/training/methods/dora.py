"""DoRA: LoRA with a magnitude of its own for each output (Liu et al. 2024), merged into weights.

vLLM loads no adapters of this kind ("vLLM does not yet support DoRA", its `peft_helper`), and the
magnitudes make the change one of full rank, which no LoRA adapter can stand for. So the result is a
whole model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from penstock_retrain.training.adapters import export_model, lora_config, merged
from penstock_retrain.training.method import Setup
from penstock_retrain.training.models import load_model
from penstock_retrain.training.request import Kind
from penstock_retrain.training.supervised import Supervised, supervised_trainer

__all__ = ["Dora"]


class Dora(Supervised):
    """See `penstock_retrain.training.method.Method`."""

    kind = Kind.FULL

    def trainer(self, setup: Setup) -> Any:
        """See `Method`."""
        return supervised_trainer(setup, lora_config(setup, dora=True))

    def export(self, setup: Setup, checkpoint: Path, out: Path) -> None:
        """See `Method`."""
        export_model(setup, merged(setup, checkpoint), out)

    def load(self, setup: Setup, exported: Path) -> Any:
        """See `Method`."""
        return load_model(exported, setup.device)
