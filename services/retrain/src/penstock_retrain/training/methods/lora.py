"""LoRA: an adapter of low rank beside frozen weights (Hu et al. 2021)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from penstock_retrain.training.adapters import adapted, export_adapter, lora_config
from penstock_retrain.training.method import Setup
from penstock_retrain.training.request import Kind
from penstock_retrain.training.supervised import Supervised, supervised_trainer

__all__ = ["Lora"]


class Lora(Supervised):
    """See `penstock_retrain.training.method.Method`."""

    kind = Kind.ADAPTER

    def trainer(self, setup: Setup) -> Any:
        """See `Method`."""
        return supervised_trainer(setup, lora_config(setup))

    def export(self, setup: Setup, checkpoint: Path, out: Path) -> None:
        """See `Method`."""
        export_adapter(setup, checkpoint, out)

    def load(self, setup: Setup, exported: Path) -> Any:
        """See `Method`."""
        return adapted(setup, exported)
