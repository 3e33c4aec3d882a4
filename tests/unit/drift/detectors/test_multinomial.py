"""Categories and counts."""

from __future__ import annotations

import json
import math
import random

import pytest

from penstock_drift.detectors.multinomial import Multinomial


def armed(draw: random.Random, weights: list[float], count: int = 2000) -> Multinomial:
    detector = Multinomial(len(weights))
    for _ in range(count):
        (index,) = draw.choices(range(len(weights)), weights)
        detector.learn(((index, 1.0),))
    detector.arm()
    return detector


def fires_at(detector: Multinomial, draw: random.Random, weights: list[float]) -> int | None:
    assert detector.mixture is not None
    for number in range(1, 8001):
        (index,) = draw.choices(range(len(weights)), weights)
        detector.update(((index, 1.0),))
        if detector.mixture.log_evidence >= math.log(1e4):
            return number
    return None


@pytest.mark.parametrize(
    ("weights", "index", "leader"),
    [
        ([70, 20, 10, 0], None, None),
        ([70, 10, 20, 0], 301, 2),
        ([80, 18, 2, 0], 283, 2),
        # A language that was never seen before.
        ([66, 19, 10, 5], 37, 3),
    ],
)
def test_fires_at_this_very_value(
    weights: list[float], index: int | None, leader: int | None
) -> None:
    draw = random.Random(8)
    detector = armed(draw, [70, 20, 10, 0])
    assert fires_at(detector, draw, weights) == index
    if leader is not None:
        assert detector.leader == leader


def test_the_words_of_one_text_may_depend_on_each_other() -> None:
    """Texts repeat one word each: counted by word, chance would look like a change."""

    def text(draw: random.Random, shift: float = 0.0) -> list[tuple[int, float]]:
        main = draw.choices(range(8), [1 + shift, *[1] * 7])[0]
        return [(main, 0.9), ((main + 3) % 8, 0.1)]

    draw = random.Random(3)
    detector = Multinomial(8)
    for _ in range(2000):
        detector.learn(text(draw))
    detector.arm()
    assert detector.mixture is not None
    for _ in range(5000):
        detector.update(text(draw))
    assert detector.mixture.log_evidence < math.log(1e4)
    found = 0
    while detector.mixture.log_evidence < math.log(1e4) and found < 2000:
        detector.update(text(draw, 1.5))
        found += 1
    assert found < 600
    assert detector.leader == 0


def test_a_state_through_json_goes_on_bit_by_bit() -> None:
    draw = random.Random(2)
    whole, parted = Multinomial(4), Multinomial(4)
    for number in range(1500):
        value = ((draw.choices(range(4), [5, 3, 2, 1 if number < 1200 else 4])[0], 1.0),)
        if number % 71 == 0:
            parted = Multinomial.from_state(json.loads(json.dumps(parted.state())))
        for detector in (whole, parted):
            (detector.learn if number < 800 else detector.update)(value)
        if number == 799:
            whole.arm()
            parted.arm()
    assert whole.mixture is not None
    assert parted.mixture is not None
    assert parted.mixture.state() == whole.mixture.state()
