"""Whether the traffic is split as declared: a sequential check of the sample ratio. Pure.

A split that is not as declared (answers lost by one arm, a cache, feedback that one arm gets
oftener) means that the arms' values are no longer comparable; no verdict on them is worth much.

The e-value is the Bayes factor of a Dirichlet prior, centred at the declared shares, against them:

    E_n = Gamma(c) / Gamma(c + n) * prod_i Gamma(c p_i + x_i) / Gamma(c p_i) / p_i^{x_i},

a test martingale under the declared shares p. Source: Lindon and Malek, "Anytime-valid inference
for multinomial count data", NeurIPS 2022: the sequential multinomial test. Each traffic step has
shares of its own, so a new prior; the e-values of the steps are multiplied. Assumed: who answers is
drawn for each counted unit anew. Where the split is by user or conversation, count those, not
requests.
"""

from __future__ import annotations

import math
from typing import Any, Self

from penstock_retrain.canary.config import Arm

__all__ = ["CONCENTRATION", "ShareCheck"]

# c: how sharply the alternative lies about the declared shares; 100 expects an error of 5 points
# at a share of a half, 2 points at one of 5 %.
CONCENTRATION = 100.0


class ShareCheck:
    """Evidence that the split is not as declared.

    Args:
        share: The candidate's declared share; at 0 or 1 nothing is counted.
    """

    def __init__(self, share: float = 0.5) -> None:
        self._share = share
        self._counts = dict.fromkeys(Arm, 0)
        self.log_e = 0.0
        self.peak = 0.0

    def begin(self, share: float) -> None:
        """A traffic step begins: counts start anew, the evidence goes on."""
        self._share = share
        self._counts = dict.fromkeys(Arm, 0)

    def add(self, arm: Arm) -> None:
        """Counts a unit that the arm was given."""
        if not 0.0 < self._share < 1.0:
            return
        declared = self._share if arm is Arm.CANDIDATE else 1.0 - self._share
        total = sum(self._counts.values())
        predicted = (CONCENTRATION * declared + self._counts[arm]) / (CONCENTRATION + total)
        self.log_e += math.log(predicted / declared)
        self.peak = max(self.peak, self.log_e)
        self._counts[arm] += 1

    @property
    def counts(self) -> dict[Arm, int]:
        """In this step."""
        return self._counts.copy()

    def state(self) -> dict[str, Any]:
        """JSON; `from_state` takes it back."""
        counts = {arm.value: count for arm, count in self._counts.items()}
        return {"share": self._share, "counts": counts, "log_e": self.log_e, "peak": self.peak}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Goes on from a state."""
        found = cls(state["share"])
        found._counts = {arm: state["counts"][arm.value] for arm in Arm}
        found.log_e, found.peak = state["log_e"], state["peak"]
        return found
