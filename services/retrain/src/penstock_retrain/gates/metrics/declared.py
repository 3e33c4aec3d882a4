"""What a metric is, for whoever writes one. Pure."""

from __future__ import annotations

import dataclasses
from enum import StrEnum
from typing import Protocol, runtime_checkable

from penstock_retrain.gates.examples import Answer, Example

__all__ = ["Declared", "Metric", "Scale"]


@runtime_checkable
class Metric(Protocol):
    """Scores one answer. Its options are the fields of the dataclass that it is."""

    @property
    def name(self) -> str:
        """As suites name it."""
        ...

    def score(self, example: Example, answer: Answer) -> float | None:
        """The answer's score, on the metric's scale.

        None where the metric says nothing of such an example (it has no expected answer, no
        schema). That must not depend on what the answer says: a bad answer has a bad score.
        """
        ...


class Scale(StrEnum):
    """Which numbers scores are, which decides how the mean is bounded."""

    YES_NO = "yes_no"  # 0 or 1
    SHARE = "share"  # from 0 to 1
    AMOUNT = "amount"  # from 0 on, without an upper end: a rule says `within` or `cap`


@dataclasses.dataclass(frozen=True)
class Declared:
    """A metric that suites may name.

    Attributes:
        kind: Its class.
        scale: Of its scores.
        meaning: One line for people.
        more_is_better: Otherwise less is.
        unit: Of amounts.
    """

    kind: type[Metric]
    scale: Scale
    meaning: str
    more_is_better: bool = True
    unit: str = ""

    @property
    def name(self) -> str:
        """As suites name it."""
        return str(self.kind.name)
