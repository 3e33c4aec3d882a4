"""How many fields of an expected JSON object are right."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from penstock.labels import same
from penstock_retrain.gates.examples import Answer, Example
from penstock_retrain.gates.metrics.parsing import parsed

__all__ = ["JsonFields"]


@dataclasses.dataclass(frozen=True)
class JsonFields:
    """Right fields of the expected ones; fields that nobody asked for count for nothing."""

    name: ClassVar[str] = "json_fields"

    def score(self, example: Example, answer: Answer) -> float | None:
        """See `Metric`."""
        expected = example.expected
        wanted = parsed(expected) if isinstance(expected, str) else expected
        if not isinstance(wanted, dict) or not wanted:
            return None
        found = parsed(answer.text)
        if not isinstance(found, dict):
            return 0.0
        return sum(name in found and same(found[name], wanted[name]) for name in wanted) / len(
            wanted
        )
