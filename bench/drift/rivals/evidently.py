"""Evidently in windows: each is compared with the baseline by the test that its presets choose.

The tests are called as its reports do, without the report around them, which takes 0.1 s.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd
from evidently.legacy.calculations.stattests import ks_stat_test, z_stat_test
from evidently.legacy.core import ColumnType

from bench.drift.rivals.runner import run


class Windows:
    """One window after another, each tested when it is full."""

    family, streams, runs = "Evidently", 20, 40

    def __init__(self, name: str, test: Any, column: Any, size: int) -> None:
        self.name, self._test, self._column, self._size = name, test, column, size

    def scores(self, baseline: Any, values: Any) -> Iterator[float]:
        """Less the logarithm of the newest full window's p-value."""
        reference = pd.Series(baseline)
        score = 0.0
        for number in range(1, len(values) + 1):
            if number % self._size == 0:
                window = pd.Series(values[number - self._size : number])
                p_value = float(self._test(reference, window, self._column, 0.05).drift_score)
                score = -math.log(max(p_value, 1e-300))
                yield score
                score = 0.0
            else:
                yield score


def contestants(kind: str) -> Sequence[Any]:
    """Those of a kind of stream."""
    test, column, name = (
        (z_stat_test, ColumnType.Categorical, "z-test")
        if kind == "rate"
        else (ks_stat_test, ColumnType.Numerical, "KS test")
    )
    return [Windows(f"{name}, windows of {size}", test, column, size) for size in (100, 300)]


if __name__ == "__main__":
    run("evidently", contestants)
