"""Blocks of values of both arms, whatever the order they come in. Pure.

A block is a few values of each arm, so many as the traffic is split: 1 : 19, 1 : 1, 3 : 1. Its
difference, the candidate's mean minus the champion's, has the difference of the arms' means as its
expectation whatever that of the champion is: no nuisance parameter is left, and unequal shares
lose nothing (a block's variance is v / a + v / b). The idea of blocks of fixed composition for
two-sample e-values: Turner, Ly, Gruenwald, "Generic E-variables for exact sequential k-sample
tests that allow for optional stopping", JSPI 230 (2024), the generic construction for two streams.

What makes it exact: which block a value belongs to, and a block's composition, are fixed by the
order of the arms alone, before the value is looked at; values are placed first come, first served;
none is ever taken out again; decisions look at full blocks only. Assumed of the values: given
their arms they are independent, and an arm's mean does not move within the span of the open blocks
(at most MAX_OPEN).
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Self

from penstock_retrain.canary.config import Arm

__all__ = ["MAX_OPEN", "MAX_RATIO", "Block", "Matcher"]

# Blocks that may wait for the arm that is behind. More would cost state, and compare values from
# further apart; with a fair split about 1.5 % of the values find no place.
MAX_OPEN = 32
# The twenty-first value of the commoner arm would lower a block's variance by 0.2 %.
MAX_RATIO = 20
# Blocks of the commoner arm's values that may wait where it has values to spare.
FEW_OPEN = 2
# Weight of the declared split against the one observed, in values of the rarer arm.
PRIOR = 20.0


@dataclasses.dataclass
class Block:
    """Values of both arms; per arm how many there shall be, and the scores there are."""

    sizes: dict[Arm, int]
    scores: dict[Arm, list[tuple[float, ...]]]

    def has_room(self, arm: Arm) -> bool:
        """Whether a value of the arm is still missing."""
        return len(self.scores[arm]) < self.sizes[arm]

    @property
    def full(self) -> bool:
        """Whether nothing is missing."""
        return not any(self.has_room(arm) for arm in Arm)


class Matcher:
    """Puts values into blocks.

    Args:
        share: The candidate's share of the values, in (0, 1).
    """

    def __init__(self, share: float = 0.5) -> None:
        self._open: list[Block] = []
        self._share = share
        self._seen = dict.fromkeys(Arm, 0)
        self._owed = 0.0
        self.dropped = 0

    def begin(self, share: float) -> None:
        """Blocks that are begun from now on expect this split; those begun keep theirs.

        So no value that somebody has seen is moved or lost by the decision to change the traffic.
        """
        self._share = share
        self._seen = dict.fromkeys(Arm, 0)

    def add(self, arm: Arm, scores: tuple[float, ...]) -> Block | None:
        """Takes the scores of one answer; returns the block that they filled."""
        block = next((block for block in self._open if block.has_room(arm)), None)
        rarer, ratio = self._split()
        self._seen[arm] += 1
        if block is None:
            spare = ratio > MAX_RATIO and arm is not rarer
            if len(self._open) >= (FEW_OPEN if spare else MAX_OPEN):
                # Before the scores are looked at, so nothing is selected by them.
                self.dropped += 1
                return None
            count = min(math.floor(ratio + self._owed + 0.5), MAX_RATIO)
            self._owed = min(0.5, max(-0.5, self._owed + ratio - count))
            sizes = {each: 1 if each is rarer else max(1, count) for each in Arm}
            block = Block(sizes, {each: [] for each in Arm})
            self._open.append(block)
        block.scores[arm].append(scores)
        if not block.full:
            return None
        self._open.remove(block)
        return block

    def _split(self) -> tuple[Arm, float]:
        """The rarer arm, and how many values of the other there are for one of it, so far."""
        declared = min(self._share, 1.0 - self._share)
        candidates = self._seen[Arm.CANDIDATE] + PRIOR * self._share / declared
        champions = self._seen[Arm.CHAMPION] + PRIOR * (1.0 - self._share) / declared
        if candidates <= champions:
            return Arm.CANDIDATE, champions / candidates
        return Arm.CHAMPION, candidates / champions

    def state(self) -> dict[str, Any]:
        """JSON; `from_state` takes it back."""
        return {
            "share": self._share,
            "seen": dict(self._seen),
            "owed": self._owed,
            "dropped": self.dropped,
            "open": [
                {
                    arm.value: {"size": block.sizes[arm], "scores": [*map(list, block.scores[arm])]}
                    for arm in Arm
                }
                for block in self._open
            ],
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Goes on from a state."""
        found = cls(state["share"])
        found._seen = {arm: state["seen"][arm.value] for arm in Arm}
        found._owed, found.dropped = state["owed"], state["dropped"]
        found._open = [
            Block(
                {arm: block[arm.value]["size"] for arm in Arm},
                {arm: [tuple(scores) for scores in block[arm.value]["scores"]] for arm in Arm},
            )
            for block in state["open"]
        ]
        return found
