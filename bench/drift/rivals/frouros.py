"""Frouros: of its detectors those that River has not, and that take less than 100 microseconds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from frouros.detectors.concept_drift import (
    CUSUM,
    RDDM,
    CUSUMConfig,
    GeometricMovingAverage,
    GeometricMovingAverageConfig,
    RDDMConfig,
)

from bench.drift.rivals.runner import run


class Sum:
    """One that fires where its sum exceeds a threshold, which the sum does not depend on."""

    family, streams, runs = "Frouros", 20, 40

    def __init__(self, name: str, detector: Any, config: Any) -> None:
        self.name = name
        self._make = lambda: detector(config=config(lambda_=math.inf))

    def scores(self, baseline: Any, values: Any) -> Iterator[float]:
        """Its sum after each value."""
        detector = self._make()
        for value in baseline.tolist():
            detector.update(value=value)
        for value in values.tolist():
            detector.update(value=value)
            yield detector.sum_


class Reactive:
    """RDDM, of events."""

    name, family, streams, runs = "RDDM", "Frouros", 20, 40
    lenient, strict = 1.0, 20.0

    def fires(self, dial: float, baseline: Any, values: Any) -> Iterator[bool]:
        """Whether it fires, after each value."""
        config = RDDMConfig(warning_level=min(1.773, dial), drift_level=dial)
        detector = RDDM(config=config)
        for value in baseline.tolist():
            detector.update(value=value)
            if detector.drift:
                detector.reset()
        for value in values.tolist():
            detector.update(value=value)
            yield bool(detector.drift)


def contestants(kind: str) -> Sequence[Any]:
    """Those of a kind of stream."""
    sums = [
        Sum("CUSUM", CUSUM, CUSUMConfig),
        Sum("GeometricMovingAverage", GeometricMovingAverage, GeometricMovingAverageConfig),
    ]
    return [*sums, Reactive()] if kind == "rate" else sums


if __name__ == "__main__":
    run("frouros", contestants)
