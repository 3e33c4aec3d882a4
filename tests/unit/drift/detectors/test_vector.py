"""Points: topics that move."""

from __future__ import annotations

import json
import math
import random

import pytest

from penstock_drift.detectors.vector import Point


def point(draw: random.Random, shift: float) -> tuple[float, ...]:
    # Units differ by dimension, and dimensions go together.
    common = draw.gauss(0, 1)
    return tuple(
        scale * (draw.gauss(0, 1) + common / 2 + (shift if index == 5 else 0.0))
        for index, scale in enumerate((0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 3.0))
    )


@pytest.mark.parametrize(("shift", "index"), [(0.0, None), (0.7, 48), (-1.5, 16)])
def test_fires_at_this_very_value(shift: float, index: int | None) -> None:
    draw = random.Random(4)
    detector = Point(8, 2000)
    for _ in range(2000):
        detector.learn(point(draw, 0))
    detector.arm()
    assert detector.mixture is not None
    found = None
    for number in range(1, 6001):
        detector.update(point(draw, shift))
        if detector.mixture.log_evidence >= math.log(1e4):
            found = number
            break
    assert found == index
    if found is not None:
        assert detector.leader == 5


def test_a_state_through_json_goes_on_bit_by_bit() -> None:
    draw = random.Random(2)
    whole, parted = Point(8, 800), Point(8, 800)
    for number in range(1200):
        value = point(draw, 0 if number < 1000 else 1)
        if number % 53 == 0:
            parted = Point.from_state(json.loads(json.dumps(parted.state())))
        for detector in (whole, parted):
            (detector.learn if number < 800 else detector.update)(value)
        if number == 799:
            whole.arm()
            parted.arm()
    assert whole.mixture is not None
    assert parted.mixture is not None
    assert parted.mixture.state() == whole.mixture.state()
