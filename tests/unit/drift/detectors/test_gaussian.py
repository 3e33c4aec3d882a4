"""Numbers: of mean and spread, with a null that is measured, not assumed."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable

import pytest

from penstock_drift.detectors.gaussian import LIMIT, Gaussian

Draw = Callable[[random.Random], float]


def normal(mean: float, deviation: float) -> Draw:
    return lambda draw: draw.gauss(mean, deviation)


def student(draw: random.Random) -> float:
    """Three degrees of freedom: no third moment."""
    return draw.gauss(0, 1) / math.sqrt(draw.gammavariate(1.5, 2) / 3)


def armed(draw: random.Random, value: Draw, count: int = 1500) -> Gaussian:
    detector = Gaussian()
    for _ in range(count):
        detector.learn(value(draw))
    detector.arm()
    return detector


def fires_at(detector: Gaussian, draw: random.Random, value: Draw, most: int) -> int | None:
    assert detector.mixture is not None
    for number in range(1, most + 1):
        detector.update(value(draw))
        if detector.mixture.log_evidence >= math.log(1e4):
            return number
    return None


@pytest.mark.parametrize(
    ("before", "after", "index"),
    [
        (normal(0, 1), normal(0.25, 1), 341),
        (normal(0, 1), normal(0.5, 1), 135),
        (normal(0, 1), normal(-1, 1), 16),
        (normal(0, 1), normal(3, 1), 6),
        (normal(0, 1), normal(0, 2), 18),
        (normal(0, 1), normal(0, 0.5), 56),
        # Units may be off: they are units only.
        (normal(0.3, 1.4), normal(0.9, 1.4), 144),
    ],
)
def test_fires_at_this_very_value(before: Draw, after: Draw, index: int) -> None:
    draw = random.Random(7)
    assert fires_at(armed(draw, before), draw, after, 3000) == index


@pytest.mark.parametrize("value", [normal(0, 1), normal(0.5, 1.5), student])
@pytest.mark.parametrize("seed", range(3))
def test_does_not_fire_on_what_it_has_learnt(value: Draw, seed: int) -> None:
    draw = random.Random(seed)
    assert fires_at(armed(draw, value), draw, value, 10_000) is None


def test_a_baseline_without_spread_finds_what_differs() -> None:
    draw = random.Random(1)
    detector = armed(draw, normal(0, 0))
    assert fires_at(detector, draw, normal(0, 0), 3000) is None
    found = fires_at(detector, draw, normal(LIMIT, 0), 100)
    assert found is not None
    assert found <= 20


def test_an_allowance_leaves_room_for_the_mean() -> None:
    def found(allowance: float, seed: int) -> int | None:
        draw = random.Random(seed)
        detector = Gaussian()
        for _ in range(3000):
            detector.learn(draw.gauss(0, 1))
        detector.arm(allowance)
        return fires_at(detector, draw, normal(0.2, 1), 4000)

    assert all(found(0.0, seed) is not None for seed in range(5))
    assert all(found(0.3, seed) is None for seed in range(5))


def test_a_state_through_json_goes_on_bit_by_bit() -> None:
    draw = random.Random(2)
    whole, parted = Gaussian(True), Gaussian(True)
    for number in range(2000):
        value = draw.gauss(0 if number < 1800 else 0.7, 1)
        if number % 83 == 0:
            parted = Gaussian.from_state(json.loads(json.dumps(parted.state())), True)
        for detector in (whole, parted):
            (detector.learn if number < 1000 else detector.update)(value)
        if number == 999:
            whole.arm()
            parted.arm()
    assert whole.mixture is not None
    assert parted.mixture is not None
    assert parted.mixture.state() == whole.mixture.state()
    assert parted.parts() == whole.parts()
