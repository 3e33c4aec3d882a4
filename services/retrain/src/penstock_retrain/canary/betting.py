"""A one-sided e-process for the mean of bounded differences. Pure.

The null is "the mean of D, given what was settled before, is at most `null`", for differences D in
[-1, 1]. A bet multiplies its wealth by

    1 + stake (D - null),   0 <= stake <= LARGEST_LOSS / (1 + null),

which is positive and has mean at most 1 under every distribution of the null, provided the stake
was chosen before D was seen. So wealth is a test supermartingale, an average of wealths is one,
and by Ville's inequality P(the evidence ever reaches 1 / level) <= level: at every look, for any
number of looks. Nothing else is assumed of the distribution: that is the composite null.

Sources: Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting",
JRSS-B 86 (2024): section 4 (the capital process and why it is a test supermartingale), appendix B
(stakes: "approximate GRAPA", where the best one is about d / (variance + d^2); "diversified Kelly",
the average over stakes). Two samples as payoffs on differences: Shekhar and Ramdas,
"Nonparametric two-sample testing by betting", IEEE Trans. Inf. Theory 70 (2024), their general
strategy, with the identity for its payoff function.

Here d is not estimated but mixed over multiples of the difference that the user wants found; the
variance is a plug-in.
"""

from __future__ import annotations

import math
from typing import Any, Self

__all__ = ["LARGEST_LOSS", "OF_HARM", "OF_PROMOTION", "Bets", "Spread", "stake"]

# Multiples of the declared difference that are bet on, each with its part of the capital: most on
# what was declared, so that it is found with little lost to the others (ln(1 / 0.6) = 0.5 nats).
# A promotion can wait; a candidate that is wrecked should be gone after tens of values.
Spread = tuple[tuple[float, float], ...]
OF_PROMOTION: Spread = ((0.5, 0.15), (1.0, 0.6), (2.0, 0.15), (4.0, 0.1))
OF_HARM: Spread = ((0.5, 0.05), (1.0, 0.4), (2.0, 0.2), (4.0, 0.15), (8.0, 0.1), (16.0, 0.1))
# A bet's largest loss by one difference (truncation at c = 1/2: Waudby-Smith and Ramdas, appendix
# B). Bolder stakes are for means that are nearly certain: where one arm errs once in two hundred
# answers a single error would then undo the gains of many.
LARGEST_LOSS = 0.5


def stake(shift: float, variance: float, null: float) -> float:
    """The stake that grows fastest where the mean is `null + shift`."""
    return min(shift / (variance + shift * shift), LARGEST_LOSS / (1.0 + null))


class Bets:
    """Evidence that the mean difference is above a bound.

    Args:
        null: The bound, in (-1, 1).
        shift: How far above it the mean is expected to be if at all, in (0, 1).
        spread: How the capital is divided.
    """

    def __init__(self, null: float, shift: float, spread: Spread) -> None:
        self._null = null
        self._shifts = [min(1.0, multiple * shift) for multiple, _ in spread]
        self._wealth = [math.log(part) for _, part in spread]
        self.peak = 0.0

    def settle(self, difference: float, variance: float) -> None:
        """Takes a difference in [-1, 1].

        Args:
            difference: D.
            variance: An estimate of D's variance from what was settled before, above 0; it must
                not know D.
        """
        payoff = difference - self._null
        self._wealth = [
            wealth + math.log1p(stake(shift, variance, self._null) * payoff)
            for wealth, shift in zip(self._wealth, self._shifts, strict=True)
        ]
        self.peak = max(self.peak, self.log_e)

    @property
    def log_e(self) -> float:
        """Natural logarithm of the e-value; 0 before anything was settled."""
        top = max(self._wealth)
        return top + math.log(math.fsum(math.exp(wealth - top) for wealth in self._wealth))

    def state(self) -> dict[str, Any]:
        """JSON; `restored` takes it back."""
        return {"wealth": list(self._wealth), "peak": self.peak}

    def restored(self, state: dict[str, Any]) -> Self:
        """Goes on from a state; returns itself."""
        self._wealth = list(state["wealth"])
        self.peak = state["peak"]
        return self
