"""Where the models are that jobs begin from: those that engines serve, and promoted versions."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

__all__ = ["Bases"]


@dataclasses.dataclass(frozen=True)
class Bases:
    """Directories of base models, in Hugging Face's format.

    Attributes:
        named: By the name that engines serve them by.
        registered: Where registered full weights are, by their versions' names.
    """

    named: Mapping[str, Path]
    registered: Path

    def path(self, name: str) -> Path:
        """Where a model is, if it is anywhere."""
        return self.named.get(name, self.registered / name)

    def has(self, name: str) -> bool:
        """Whether a model is there."""
        return (self.path(name) / "config.json").is_file()
