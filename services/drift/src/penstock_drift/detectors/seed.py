"""SEED: ADWIN's test at the edges of blocks, which are merged where they are alike. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

__all__ = ["Seed"]

# Blocks kept: the two oldest are merged beyond it, so that state and work are bounded. The paper
# merges by likeness alone, and keeps ever more blocks of a stream that is merely noisy.
MAX_BLOCKS = 20


class Seed:
    """Stream of blocks, cut where the means on both sides differ by more than chance.

    Values come in blocks of `block`. When one is full, every edge between blocks, from the newest
    back, is tested: with n_0 values of mean u_0 before it and n_1 of mean u_1 since, n = n_0 + n_1
    and the window's variance v, it fires where |u_1 - u_0| exceeds

        sqrt(2 m v d) + 2/3 m d,    m = 1/n_0 + 1/n_1,    d = ln(2 ln(n) / delta),

    and drops what lies before the edge (Huang, Koh, Dobbie, Pears, "Detecting volatility shift in
    data streams", ICDM 2014, section IV, after Bifet and Gavalda's ADWIN, SDM 2007, section 3.2).
    Every `term` blocks, from the newest back, neighbours whose means differ by less than
    epsilon' are merged, where epsilon' grows by `epsilon * growth` per block, so that edges are
    kept where changes have been and thin out with age (ibid., block compression, linear growth).
    As in the authors' code (MOA's SEEDChangeDetector) v sums, per value, the squared distance from
    the mean at its time.

    Unlike theirs it keeps `max_blocks` blocks at most.

    Args:
        delta: Smaller fires later and errs less.
        block: Values per block.
        epsilon: The paper's epsilon'.
        growth: The paper's alpha.
        term: Blocks between two compressions.
        max_blocks: Blocks that are kept.
    """

    def __init__(
        self,
        delta: float = 0.05,
        block: int = 32,
        epsilon: float = 0.01,
        growth: float = 0.8,
        term: int = 75,
        max_blocks: int = MAX_BLOCKS,
    ) -> None:
        self.fired = False
        self._delta, self._block = delta, block
        self._step, self._term, self._max_blocks = epsilon * growth, term, max_blocks
        # Oldest first: count, sum, squared distances.
        self._blocks: list[list[float]] = [[0, 0.0, 0.0]]
        self._seen = 0
        self._since = 0
        # Of the whole window.
        self._count, self._total, self._spread = 0, 0.0, 0.0

    @property
    def name(self) -> str:
        """The detector with its parameters."""
        return f"seed(delta={self._delta:g})"

    def update(self, value: float) -> None:
        """Takes a value; one that is not finite is passed over, it would stay in every mean."""
        if not math.isfinite(value):
            return
        newest = self._blocks[-1]
        if newest[0] == self._block:
            if len(self._blocks) > 1 and self._since > self._term:
                self._since = 0
                self._compress()
            elif len(self._blocks) >= self._max_blocks:
                self._merge(1)
            newest = [0, 0.0, 0.0]
            self._blocks.append(newest)
            self._since += 1
        newest[0] += 1
        newest[1] += value
        self._count += 1
        self._total += value
        if self._count >= 2:
            # By one less than the count, as the authors have it.
            distance = value - self._total / (self._count - 1)
            spread = (self._count - 1) * distance * distance / self._count
            newest[2] += spread
            self._spread += spread
        self._seen += 1
        self.fired = self._seen % self._block == 0 and len(self._blocks) >= 2 and self._cut()

    def _cut(self) -> bool:
        older, newer = self._count, 0
        before, since = self._total, 0.0
        variance = self._spread / self._count
        depth = math.log(2 * math.log(self._count) / self._delta)
        for index in range(len(self._blocks) - 1, 0, -1):
            count, total, _ = self._blocks[index]
            older -= int(count)
            newer += int(count)
            before -= total
            since += total
            inverse = 1 / older + 1 / newer
            bound = math.sqrt(2 * inverse * variance * depth) + 2 / 3 * depth * inverse
            if abs(since / newer - before / older) > bound:
                for dropped in self._blocks[:index]:
                    self._count -= int(dropped[0])
                    self._total -= dropped[1]
                    self._spread -= dropped[2]
                del self._blocks[:index]
                return True
        return False

    def _compress(self) -> None:
        epsilon = 0.0
        for index in range(len(self._blocks) - 1, 0, -1):
            newer, older = self._blocks[index], self._blocks[index - 1]
            epsilon += self._step
            if abs(older[1] / older[0] - newer[1] / newer[0]) < epsilon:
                self._merge(index)

    def _merge(self, index: int) -> None:
        """Puts a block into the one before it."""
        newer = self._blocks.pop(index)
        older = self._blocks[index - 1]
        older[0] += newer[0]
        older[1] += newer[1]
        older[2] += newer[2]

    def state(self) -> dict[str, Any]:
        """JSON; `restore` takes it back."""
        window = [self._seen, self._since, self._count, self._total, self._spread]
        return {"blocks": self._blocks, "window": window, "fired": self.fired}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from a state."""
        self._blocks = [list(block) for block in state["blocks"]]
        seen, since, count, total, spread = state["window"]
        self._seen, self._since, self._count = seen, since, count
        self._total, self._spread = total, spread
        self.fired = state["fired"]
