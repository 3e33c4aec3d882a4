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


class _Fisher(FETDriftOnline):  # type: ignore[misc]  # it has no types here
    def _configure_thresholds(self) -> None:
        """None: see the module."""


class _CramerVonMises(CVMDriftOnline):  # type: ignore[misc]  # it has no types here
    def _configure_thresholds(self) -> None:
        """None: see the module."""


class Fisher:
    """FETDriftOnline, windows of 50 and 200, either direction."""

    name, family, streams, runs = "FETDriftOnline", "alibi-detect", 8, 20

    def scores(self, baseline: Any, values: Any) -> Iterator[float]:
        """Less the logarithm of the least p-value of either direction, after each value."""
        sides = [
            _Fisher(
                baseline.astype(np.int64),
                ert=1000,
                window_sizes=[50, 200],
                alternative=alternative,
                verbose=False,
            )
            for alternative in ("greater", "less")
        ]
        for value in values.astype(np.int64):
            told = np.array([value])
            least = min(float(np.min(1 - _filled(side.score(told)))) for side in sides)
            yield -math.log(max(least, 1e-300))


class CramerVonMises:
    """CVMDriftOnline, windows of 20 and 100."""

    name, family, streams, runs = "CVMDriftOnline", "alibi-detect", 8, 20

    def __init__(self) -> None:
        self._units: Any = None

    def scores(self, baseline: Any, values: Any) -> Iterator[float]:
        """The larger of its windows' statistics, each in units of its bootstrap's threshold."""
        reference, windows = baseline.astype(float), [20, 100]
        if self._units is None:
            # Distribution-free: one reference's serve all.
            configured = CVMDriftOnline(
                reference, ert=500, window_sizes=windows, n_bootstraps=5000, verbose=False
            )
            self._units = np.asarray(configured.thresholds)[-1].reshape(-1)
        detector = _CramerVonMises(reference, ert=500, window_sizes=windows, verbose=False)
        for value in values.astype(float):
            yield float(np.max(_filled(detector.score(np.array([value]))) / self._units))


def _filled(statistic: Any) -> Any:
    """A window that is not full says nothing."""
    found = np.asarray(statistic, dtype=float).reshape(-1)
    return np.where(np.isnan(found), 0.0, found)


def contestants(kind: str) -> Sequence[Any]:
    """Those of a kind of stream."""
    return [Fisher()] if kind == "rate" else [CramerVonMises()]


if __name__ == "__main__":
    run("alibi-detect", contestants)
