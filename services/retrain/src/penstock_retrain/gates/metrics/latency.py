"""How long an answer takes."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from penstock_retrain.gates.examples import Answer, Example

__all__ = ["Latency"]


@dataclasses.dataclass(frozen=True)
class Latency:
    """Seconds from question to whole answer, on the machine that the gates run on.

    Compare contenders with it; what clients wait is the serving engine's, and the canary's.
    """

    name: ClassVar[str] = "latency_s"

    def score(self, example: Example, answer: Answer) -> float | None:
        """See `Metric`; says nothing where several were asked together (`answers.batch: 1`)."""
        return answer.seconds if answer.batch == 1 else None
