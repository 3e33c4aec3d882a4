"""What an answer's tokens cost."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from penstock_retrain.gates.examples import Answer, Example

__all__ = ["Cost"]


@dataclasses.dataclass(frozen=True)
class Cost:
    """Microdollars for question and answer, at the suite's prices.

    Attributes:
        input_microusd: For a thousand tokens of the question.
        output_microusd: For a thousand tokens of the answer.
    """

    name: ClassVar[str] = "cost_microusd"
    input_microusd: float
    output_microusd: float

    def __post_init__(self) -> None:
        if self.input_microusd < 0 or self.output_microusd < 0:
            raise ValueError("prices are 0 or more")

    def score(self, example: Example, answer: Answer) -> float | None:
        """See `Metric`."""
        asked = self.input_microusd * answer.prompt_tokens
        return (asked + self.output_microusd * answer.completion_tokens) / 1000
