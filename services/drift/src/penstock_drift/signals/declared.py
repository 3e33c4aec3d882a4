"""How a signal is declared."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from enum import Enum

from penstock_drift.records.values import Kind, SignalType, Value
from penstock_drift.signals.facts import Facts

__all__ = ["Declaration", "Draw", "Origin", "Transform"]

# A signal's value of some facts; None where they do not tell.
Draw = Callable[[Facts], Value | None]


class Transform(Enum):
    """What a number becomes before it is compared with a baseline."""

    NONE = "none"
    # Of log(1 + x): lengths, durations and costs are skewed, their logarithms hardly.
    LOG = "log"


class Origin(Enum):
    """What a signal needs to be known."""

    # The terminal record alone.
    RESPONSE = "response"
    # The request as it was admitted.
    REQUEST = "request"
    # Both of them.
    JOINED = "joined"
    # Somebody's opinion, and the response that it is of.
    FEEDBACK = "feedback"


def _nothing(_: Facts) -> None:
    return None


@dataclasses.dataclass(frozen=True, slots=True)
class Declaration:
    """A signal.

    Attributes:
        name: Unique; what policies and findings call it.
        type: What its values are.
        kind: What it means when it changes.
        meaning: A line for people.
        unit: Of its values; empty for none.
        transform: What becomes of numbers before they are compared.
        origin: What it needs.
        higher_is_worse: None where neither direction is worse.
        size: Bins of counts, dimensions of a vector; 0 of other types.
        measure: Version of the patterns that its values are hits of: rises where they are measured
            otherwise, and a baseline of another one is measured anew.
        draw: Computes it. Pure, bounded in time whatever the text, and never raises for what a
            text holds.
    """

    name: str
    type: SignalType
    kind: Kind
    meaning: str = ""
    unit: str = ""
    transform: Transform = Transform.NONE
    origin: Origin = Origin.RESPONSE
    higher_is_worse: bool | None = None
    size: int = 0
    measure: int = 1
    draw: Draw = dataclasses.field(default=_nothing, compare=False, repr=False)
