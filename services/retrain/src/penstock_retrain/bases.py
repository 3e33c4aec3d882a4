"""Where the models are that jobs begin from: those that engines serve, and promoted versions."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

__all__ = ["Bases", "NoBaseModel"]


class NoBaseModel(Exception):
    """A base model is not there; says where it was looked for, and the remedy."""


@dataclasses.dataclass(frozen=True)
class Bases:
    """Directories of base models, in Hugging Face's format.

    Attributes:
        named: By the name that engines serve them by.
        registered: Where registered full weights are, by their versions' names.
    """

    named: Mapping[str, Path]
    registered: Path

    def find(self, name: str) -> Path:
        """Where a model is.

        Raises:
            NoBaseModel: It is not there.
        """
        path = self.named.get(name, self.registered / name)
        if not (path / "config.json").is_file():
            known = ", ".join(sorted(self.named)) or "none"
            raise NoBaseModel(
                f"{name} has no Hugging Face directory at {path}; name it in "
                f"PENSTOCK_RETRAIN_BASE_MODELS (it names {known}), or another model in the policy"
            )
        return path.resolve()
