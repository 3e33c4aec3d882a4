"""Whether an answer keeps to itself what it must not say."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from penstock_retrain.gates.examples import Answer, Example

__all__ = ["NoForbidden"]


@dataclasses.dataclass(frozen=True)
class NoForbidden:
    """1 where none of the example's forbidden texts stands in the answer, whatever their case."""

    name: ClassVar[str] = "no_forbidden"

    def score(self, example: Example, answer: Answer) -> float | None:
        """See `Metric`; says nothing of examples that forbid nothing."""
        if not example.forbidden:
            return None
        said = answer.text.casefold()
        return float(not any(text.casefold() in said for text in example.forbidden))
