"""Shiryaev-Roberts e-detectors, mixed: what all of ours are made of. Pure.

For each bet k (an alternative: which way the signal changes and how much) a value x has a factor
L_k(x) with E[L_k(x) | past] <= 1 as long as nothing has changed. Then

    M_k <- L_k(x) (M_k + 1),        M = sum_k w_k M_k,   sum_k w_k = 1

is an e-detector: E[M at tau] <= E[tau] for every stopping time tau, hence the mean time to a
false alarm of "M >= 1 / alpha" is at least 1 / alpha (Shin, Ramdas, Rinaldo, "E-detectors: a
nonparametric framework for sequential change detection", NEJSDS 2024, definition 2.2, equations
(9) and (13), and section 4 on mixtures). A cap from above keeps that: it only takes away.

Beside M runs the CUSUM of the mixture's own factor, M_t / (M_t-1 + 1): the bets' average, each
weighed by what it has won. It is the likelihood ratio of "changed since the start" and starts anew
where it falls below 1, so its start is the most likely time of the change (Page, "Continuous
inspection schemes", Biometrika 41, 1954).

Small bets gain slowly and lose as slowly: left alone, evidence would stay for thousands of values
after a change is gone. So all bets are dropped where the CUSUM has fallen from its peak by a factor
of `RECOVERED`: by then the newest values speak as strongly for "no change". Dropping bets keeps the
promise too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import mul
from typing import Any

__all__ = ["CAP", "Mixture"]

# Of each bet's value. Far above any threshold that e-BH asks for (the number of signals over
# alpha), and low enough for the evidence to be gone soon after a change is.
CAP = 1e12
# A single value may take evidence off the cap; as long as it stays above this it stands there.
NEAR_CAP = CAP * 1e-4
# Ten nats: by chance, while the change lasts, fewer than one in 20,000 excursions are so deep.
RECOVERED = math.exp(10)


class Mixture:
    """The value of a mixture of bets, and its CUSUM.

    Args:
        weights: Of the bets; they sum to 1.

    Attributes:
        fresh: The CUSUM has just started anew: the next value would be the first after a change.
        ratio: The CUSUM's value; at the restart that made it fresh, what it had fallen to.
        saturated: Values in a row, up to the newest, at which some bet stood near the cap.
    """

    __slots__ = ("_bets", "_peak", "_value", "_weights", "fresh", "ratio", "saturated")

    def __init__(self, weights: Sequence[float]) -> None:
        self._weights = tuple(weights)
        self._bets = [0.0] * len(self._weights)
        # M, and the CUSUM's largest value since its start.
        self._value = 0.0
        self._peak = 1.0
        self.fresh = True
        self.ratio = 1.0
        self.saturated = 0

    def update(self, factors: Sequence[float]) -> None:
        """Takes a value by its factors, one per bet."""
        bets = [(bet + 1.0) * factor for bet, factor in zip(self._bets, factors, strict=True)]
        highest = max(bets)
        if highest > CAP:
            bets = [min(bet, CAP) for bet in bets]
        self.saturated = self.saturated + 1 if highest >= NEAR_CAP else 0
        self._bets = bets
        before, self._value = self._value, sum(map(mul, self._weights, bets))
        factor = self._value / (before + 1.0)
        ratio = self.ratio = min(CAP, factor if self.fresh else self.ratio * factor)
        self.fresh = ratio < 1.0
        if ratio > self._peak:
            self._peak = ratio
        elif ratio * RECOVERED < self._peak:
            self._bets = [0.0] * len(bets)
            self._value = 0.0
            self.fresh = True
        if self.fresh:
            self._peak = 1.0

    @property
    def log_evidence(self) -> float:
        """Natural logarithm of M; -inf before the first value."""
        return math.log(self._value) if self._value > 0 else -math.inf

    def log_part(self, part: slice) -> float:
        """Natural logarithm of the mixture of some of the bets alone."""
        weights, bets = self._weights[part], self._bets[part]
        value = sum(map(mul, weights, bets))
        return math.log(value / sum(weights)) if value > 0 else -math.inf

    def state(self) -> list[Any]:
        """JSON; `restore` takes it back."""
        return [self._bets, self._value, self.ratio, self._peak, self.fresh, self.saturated]

    def restore(self, state: Sequence[Any]) -> None:
        """Goes on from a state.

        Raises:
            ValueError: It is of a mixture of another size.
        """
        bets, value, ratio, peak, fresh, saturated = state
        if len(bets) != len(self._weights):
            raise ValueError(f"state of {len(bets)} bets for a mixture of {len(self._weights)}")
        self._bets, self._value, self.ratio, self._peak = list(bets), value, ratio, peak
        self.fresh, self.saturated = fresh, saturated
