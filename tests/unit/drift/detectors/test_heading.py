"""Counts over many bins: where all of them go together."""

from __future__ import annotations

import json
import math
import random

import pytest

from penstock_drift.detectors.heading import Heading, Shares

BINS = 64
WORDS = 12  # of a text


def text(draw: random.Random, usual: list[float]) -> Shares:
    words = draw.choices(range(BINS), usual, k=WORDS)
    return [(bin_, words.count(bin_) / WORDS) for bin_ in dict.fromkeys(words)]


def vocabulary(*, renamed: int = 0, by: float = 1.0) -> list[float]:
    """How often words of each bin are used: like language's, and some bins' words by others'."""
    usual = [1 / (1 + bin_) for bin_ in range(BINS)]
    for number in range(renamed):
        usual[5 + number] /= 1 + by
        usual[-1 - number] *= 1 + 4 * by
    return usual


def armed(draw: random.Random, count: int = 2000) -> Heading:
    detector = Heading(BINS, count)
    for _ in range(count):
        detector.learn(text(draw, vocabulary()))
    detector.arm()
    return detector


def fires_at(detector: Heading, draw: random.Random, usual: list[float], most: int) -> int | None:
    assert detector.mixture is not None
    for number in range(1, most + 1):
        detector.update(text(draw, usual))
        if detector.mixture.log_evidence >= math.log(1e5):
            return number
    return None


@pytest.mark.parametrize(
    ("renamed", "by", "index"), [(0, 0.0, None), (2, 1.0, 165), (8, 0.5, 204), (8, 1.0, 89)]
)
def test_fires_at_this_very_value(renamed: int, by: float, index: int | None) -> None:
    draw = random.Random(4)
    detector = armed(draw)
    assert fires_at(detector, draw, vocabulary(renamed=renamed, by=by), 4000) == index


def test_the_place_along_the_way_is_small_by_chance_and_the_shift_after_a_change() -> None:
    draw = random.Random(5)
    detector = armed(draw)
    places = {}
    for renamed in (0, 8):
        found = []
        for _ in range(2000):
            detector.update(text(draw, vocabulary(renamed=renamed)))
            found.append(detector.along)
        places[renamed] = sum(found[1000:]) / 1000
    assert places == {0: pytest.approx(0.088, abs=0.001), 8: pytest.approx(1.746, abs=0.001)}


def test_a_label_that_was_never_seen_is_told_by_its_share() -> None:
    """Its deviation in the baseline is none at all: what it tells is bounded, and still enough."""
    draw = random.Random(6)
    detector = Heading(BINS, 1000)
    for _ in range(1000):
        detector.learn([(draw.randrange(2), 0.5), (10 + draw.randrange(3), 0.5)])
    detector.arm()
    assert detector.mixture is not None
    fired = 0
    while detector.mixture.log_evidence < math.log(1e5):
        fired += 1
        label = 20 if draw.random() < 0.1 else 10 + draw.randrange(3)
        detector.update([(draw.randrange(2), 0.5), (label, 0.5)])
    assert fired == 244


def test_baselines_of_chance_alone_keep_the_promise() -> None:
    """40 baselines of 300 values: of 750 quiet values M >= 10,000 is allowed in 3 of them."""
    passed = 0
    for seed in range(40):
        draw = random.Random(seed)
        detector = armed(draw, 300)
        assert detector.mixture is not None
        for _ in range(750):
            detector.update(text(draw, vocabulary()))
            if detector.mixture.log_evidence >= math.log(1e4):
                passed += 1
                break
    assert passed == 0


def test_a_state_through_json_goes_on_bit_by_bit() -> None:
    draw = random.Random(2)
    whole, parted = Heading(BINS, 600), Heading(BINS, 600)
    largest = 0
    for number in range(1500):
        value = text(draw, vocabulary(renamed=8 if number > 900 else 0))
        for each in (whole, parted):
            if number < 600:
                each.learn(value)
            if number == 599:
                each.arm()
            if number >= 600:
                each.update(value)
        if number % 7 == 0:
            state = json.dumps(parted.state())
            largest = max(largest, len(state))
            parted = Heading.from_state(json.loads(state))
        assert parted.state() == whole.state()
    assert whole.mixture is not None
    assert whole.mixture.log_evidence > 10
    assert largest < 1300


def test_what_never_varies_is_a_baseline_too() -> None:
    """Answers that are all of one form: what comes instead of it is found at once."""
    detector = Heading(BINS, 500)
    for _ in range(500):
        detector.learn([(3, 0.5), (7, 0.5)])
    detector.arm()
    assert detector.mixture is not None
    for _ in range(20_000):
        detector.update([(3, 0.5), (7, 0.5)])
    assert detector.mixture.log_evidence < math.log(300)
    needed = 0
    while detector.mixture.log_evidence < math.log(1e4):
        detector.update([(4, 0.5), (7, 0.5)])
        needed += 1
    assert needed == 33
