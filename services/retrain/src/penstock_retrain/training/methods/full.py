"""Full fine-tuning: every weight moves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from penstock_retrain.training.adapters import export_model
from penstock_retrain.training.method import Setup
from penstock_retrain.training.models import load_model
from penstock_retrain.training.request import Kind
from penstock_retrain.training.supervised import Supervised, supervised_trainer

__all__ = ["Full"]


class Full(Supervised):
    """See `penstock_retrain.training.method.Method`."""

    kind = Kind.FULL

    def trainer(self, setup: Setup) -> Any:
        """See `Method`."""
        return supervised_trainer(setup)

    def export(self, setup: Setup, checkpoint: Path, out: Path) -> None:
        """See `Method`."""
        export_model(setup, load_model(checkpoint, setup.device, frozen=False), out)

    def load(self, setup: Setup, exported: Path) -> Any:
        """See `Method`."""
        return load_model(exported, setup.device)
