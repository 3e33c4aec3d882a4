"""Whether an answer is the expected one."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from penstock.labels import same
from penstock_retrain.gates.examples import Answer, Example
from penstock_retrain.gates.metrics.parsing import parsed

__all__ = ["ExactMatch"]


@dataclasses.dataclass(frozen=True)
class ExactMatch:
    """Texts are compared but for case and white space, JSON but for white space and order.

    A JSON answer with anything around it is wrong: nobody could parse it.

    Attributes:
        field: The one field of an expected object that has to be right; empty for all.
    """

    name: ClassVar[str] = "exact_match"
    field: str = ""

    def score(self, example: Example, answer: Answer) -> float | None:
        """See `Metric`."""
        expected = example.expected
        if expected is None:
            return None
        wanted = parsed(expected) if isinstance(expected, str) else expected
        if isinstance(wanted, dict | list):
            found = parsed(answer.text)
            if self.field and isinstance(wanted, dict):
                if self.field not in wanted:
                    return None
                if not isinstance(found, dict) or self.field not in found:
                    return 0.0
                return float(same(found[self.field], wanted[self.field]))
            return float(found is not None and same(found, wanted))
        if not isinstance(expected, str):
            return float(same(parsed(answer.text), expected))
        return float(same(answer.text, expected))
