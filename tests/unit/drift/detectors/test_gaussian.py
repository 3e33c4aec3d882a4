"""Numbers: of mean and spread, with a null that is measured, not assumed."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable

import pytest

from penstock_drift.detectors.gaussian import LIMIT, MEANS, SPREADS, Gaussian

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
        (normal(0, 1), normal(0.5, 1), 143),
        (normal(0, 1), normal(-1, 1), 17),
        (normal(0, 1), normal(3, 1), 7),
        (normal(0, 1), normal(0, 2), 19),
        (normal(0, 1), normal(0, 0.5), 58),
        # Units may be off: they are units only.
        (normal(0.3, 1.4), normal(0.9, 1.4), 155),
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


@pytest.mark.parametrize("z", [-6.0, -1.5, -0.3, 0.0, 0.7, 2.5, 9.0])
def test_factors_are_the_tilts_that_are_declared(z: float) -> None:
    """They are computed by powers and reciprocals; this is what they stand for."""
    detector = armed(random.Random(4), normal(0, 1))
    assert detector.mixture is not None
    detector.update(z)
    means = [tilt * min(limit, max(-limit, z)) for tilt, limit, _ in MEANS]
    size = min(LIMIT, abs(z))
    exponents = [*means, *(-mean for mean in means), *(spread * size for spread in SPREADS)]
    first = detector.mixture.state()[0]
    divisors = detector.state()["null"]
    assert first == pytest.approx(
        [math.exp(each) * divisor for each, divisor in zip(exponents, divisors, strict=True)]
    )


def test_a_shift_under_heavy_tails_is_found_by_the_bet_that_clips_them() -> None:
    """Without that bet these take 571 values together."""

    def found(seed: int) -> int:
        draw = random.Random(seed)
        index = fires_at(armed(draw, student), draw, lambda draw: student(draw) + 0.8, 3000)
        assert index is not None
        return index

    assert sum(found(seed) for seed in range(8)) == 501


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
