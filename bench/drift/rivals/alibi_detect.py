"""alibi-detect's online detectors: Fisher's exact test of rates, Cramer and von Mises' of numbers.

Its own thresholds follow from a bootstrap of the reference to an expected run time, which takes
half a minute for each stream. Here its statistics are used as they are, at the most lenient
constant threshold that has the mean time; between its windows CVM's are weighed by what a small
bootstrap of its own says of their sizes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from alibi_detect.cd import CVMDriftOnline, FETDriftOnline

from bench.drift.rivals.runner import run


class Fisher:
    """FETDriftOnline, windows of 50 and 200, either direction."""

    name, family, streams, runs = "FETDriftOnline", "alibi-detect", 8, 20

    def scores(self, baseline: Any, values: Any) -> Iterator[float]:
        """Less the logarithm of the least p-value of either direction, after each value."""
        sides = [
            FETDriftOnline(
                baseline.astype(np.int64),
                ert=100,
                window_sizes=[50, 200],
                n_bootstraps=1000,
                alternative=alternative,
                verbose=False,
            )
            for alternative in ("greater", "less")
        ]
        for value in values.astype(np.int64):
            told = np.array([value])
            least = min(float(np.nanmin(1 - _filled(side.score(told)))) for side in sides)
            yield -math.log(max(least, 1e-300))


class CramerVonMises:
    """CVMDriftOnline, windows of 20 and 100."""

    name, family, streams, runs = "CVMDriftOnline", "alibi-detect", 8, 20

    def __init__(self) -> None:
        self._units: Any = None

    def scores(self, baseline: Any, values: Any) -> Iterator[float]:
        """The larger of its windows' statistics, each in units of its bootstrap's threshold."""
        detector = CVMDriftOnline(
            baseline.astype(float), ert=500, window_sizes=[20, 100], n_bootstraps=2500,
            verbose=False,
        ) if self._units is None else CVMDriftOnline(
            baseline.astype(float), ert=100, window_sizes=[20, 100], n_bootstraps=1000,
            verbose=False,
        )  # fmt: skip
        if self._units is None:
            # Distribution-free: one reference's serve all.
            self._units = np.asarray(detector.thresholds)[-1].reshape(-1)
        for value in values.astype(float):
            statistic = np.asarray(detector.score(np.array([value]))).reshape(-1)
            yield float(np.nanmax(np.where(np.isnan(statistic), 0.0, statistic / self._units)))


def _filled(statistic: Any) -> Any:
    """A window that is not full says nothing."""
    found = np.asarray(statistic, dtype=float).reshape(-1)
    return np.where(np.isnan(found), 0.0, found)


def contestants(kind: str) -> Sequence[Any]:
    """Those of a kind of stream."""
    return [Fisher()] if kind == "rate" else [CramerVonMises()]


if __name__ == "__main__":
    run("alibi-detect", contestants)
