"""SEED, STEPD and River's detectors behind one protocol."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from river.drift.adwin import ADWIN
from river.drift.binary import DDM, HDDMW
from river.drift.page_hinkley import PageHinkley

from penstock_drift.detectors.calibrated import DIALS, make
from penstock_drift.detectors.seed import Seed
from penstock_drift.detectors.stepd import Stepd
from penstock_drift.policy.document import SignalRule


def shifted(seed: int, before: float, after: float, count: int = 1000) -> list[float]:
    draw = random.Random(seed)
    return [draw.gauss(before, 1) for _ in range(count)] + [
        draw.gauss(after, 1) for _ in range(count)
    ]


def fired_at(detector: Any, values: list[float]) -> list[int]:
    found = []
    for index, value in enumerate(values):
        detector.update(value)
        if detector.fired:
            found.append(index)
    return found


@pytest.mark.parametrize(
    ("name", "indices"),
    [
        ("adwin", [1055]),
        ("adwin_spread", [1055]),
        ("page_hinkley", [1035]),
        ("kswin", [435, 1023, 1891]),
        ("seed", [1023, 1311]),
        ("stepd", [911, 1026]),
        ("ddm", [1158]),
        ("eddm", [57, 122, 219]),
        ("fhddm", [1034]),
        ("hddm_a", [916, 1029]),
        ("hddm_w", [903, 1031]),
    ],
)
def test_fires_at_these_very_values(name: str, indices: list[int]) -> None:
    """A shift by 1.5 deviations at 1,000, at the dials of the detectors' authors; the first three.

    Those before 1,000 are false alarms: hence the calibration.
    """
    assert fired_at(make(name, None, True), shifted(9, 0, 1.5))[:3] == indices


@settings(max_examples=100, deadline=None)
@given(
    name=st.sampled_from(sorted(DIALS)),
    dial=st.one_of(st.floats(0, 1), st.floats(allow_nan=False, allow_infinity=False)),
)
def test_whatever_threshold_a_policy_may_have_a_detector_runs_at_it(name: str, dial: float) -> None:
    try:
        SignalRule.model_validate({"detectors": [name], "thresholds": {name: dial}})
    except ValidationError:
        return
    detector = make(name, dial, True)
    fired_at(detector, shifted(1, 0, 3, 100))
    again = make(name, dial, True)
    again.restore(json.loads(json.dumps(detector.state(), allow_nan=False)))
    assert json.dumps(again.state()) == json.dumps(detector.state())


@pytest.mark.parametrize("name", DIALS)
def test_a_state_through_json_goes_on_bit_by_bit(name: str) -> None:
    values = shifted(3, 0, 1.2, 300) + shifted(4, -1, 1, 150)
    whole, parted = make(name, None, True), make(name, None, True)
    for index, value in enumerate(values):
        if index % 61 == 0:
            state = json.loads(json.dumps(parted.state(), allow_nan=False))
            parted = make(name, None, True)
            parted.restore(state)
        whole.update(value)
        parted.update(value)
        assert parted.fired == whole.fired, index


@pytest.mark.parametrize("name", DIALS)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_would_poison_it_is_passed_over(name: str, bad: float) -> None:
    values = shifted(9, 0, 1.5)
    clean, dirty = make(name, None, True), make(name, None, True)
    found = fired_at(dirty, [*values[:500], bad, *values[500:]])
    # The bad one took an index.
    assert fired_at(clean, values) == [index - (index >= 500) for index in found]


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("adwin", ADWIN(delta=0.002, max_buckets=2)),
        ("page_hinkley", PageHinkley(threshold=50)),
        ("ddm", DDM()),
        ("hddm_w", HDDMW(warning_confidence=0.001, two_sided_test=True)),
    ],
)
def test_agrees_with_river_itself(name: str, theirs: Any) -> None:
    values = shifted(12, 0, 1.5)
    found = []
    for index, value in enumerate(values):
        theirs.update(int(value > 0) if name in ("ddm", "hddm_w") else value)
        if theirs.drift_detected:
            found.append(index)
    assert fired_at(make(name, None, True), values) == found


def test_another_version_of_river_starts_empty() -> None:
    detector = make("adwin", None, True)
    fired_at(detector, shifted(9, 0, 0))
    state = dict(detector.state()) | {"river": "0.0.1"}
    fresh = make("adwin", None, True)
    fresh.restore(state)
    assert fresh.state() == make("adwin", None, True).state()


def test_where_a_fall_is_worse_one_sided_detectors_see_the_fall() -> None:
    draw = random.Random(1)
    values = [1.0 if draw.random() < (0.95 if n < 1000 else 0.4) else -1.0 for n in range(2000)]
    assert fired_at(make("fhddm", None, False), values)[0] >= 1000
    assert fired_at(make("fhddm", None, True), values) == []


def test_seed_agrees_with_a_plain_transcription_where_no_block_is_dropped() -> None:
    events = [1.0 if n * n % 101 < (20 if n < 3000 else 45) else 0.0 for n in range(6000)]
    assert fired_at(Seed(max_blocks=10_000), events) == fired_at(_Reference(), events)


def test_seed_keeps_its_bound() -> None:
    detector = Seed()
    draw = random.Random(2)
    for _ in range(20_000):
        detector.update(draw.gauss(0, 1))
    assert len(detector.state()["blocks"]) <= 20
    assert len(json.dumps(detector.state())) < 1500


class _Reference:
    """SEED as its paper states it and its authors programmed it, with all values kept."""

    def __init__(self) -> None:
        self.fired = False
        self.blocks: list[list[float]] = [[]]
        self.spreads: list[float] = [0.0]
        self.seen = self.since = 0

    def update(self, value: float) -> None:
        if len(self.blocks[-1]) == 32:
            if len(self.blocks) > 1 and self.since > 75:
                self.since, epsilon = 0, 0.0
                for index in range(len(self.blocks) - 1, 0, -1):
                    epsilon += 0.01 * 0.8
                    means = [sum(b) / len(b) for b in self.blocks[index - 1 : index + 1]]
                    if abs(means[0] - means[1]) < epsilon:
                        self.blocks[index - 1 : index + 1] = [
                            self.blocks[index - 1] + self.blocks[index]
                        ]
                        self.spreads[index - 1 : index + 1] = [
                            self.spreads[index - 1] + self.spreads[index]
                        ]
            self.blocks.append([])
            self.spreads.append(0.0)
            self.since += 1
        self.blocks[-1].append(value)
        self.seen += 1
        width = sum(map(len, self.blocks))
        if width >= 2:
            total = sum(map(sum, self.blocks))
            self.spreads[-1] += (width - 1) * (value - total / (width - 1)) ** 2 / width
        self.fired = self.seen % 32 == 0 and len(self.blocks) >= 2 and self.cut(width)

    def cut(self, width: int) -> bool:
        depth = math.log(2 * math.log(width) / 0.05)
        variance = sum(self.spreads) / width
        for index in range(len(self.blocks) - 1, 0, -1):
            old = [x for block in self.blocks[:index] for x in block]
            new = [x for block in self.blocks[index:] for x in block]
            inverse = 1 / len(old) + 1 / len(new)
            bound = math.sqrt(2 * inverse * variance * depth) + 2 / 3 * depth * inverse
            if abs(sum(old) / len(old) - sum(new) / len(new)) > bound:
                del self.blocks[:index]
                del self.spreads[:index]
                return True
        return False


def test_stepd_by_hand() -> None:
    """30 of 30 after 15 of 60: T = (3/4 - (1/60 + 1/30) / 2) / sqrt(1/2 1/2 (1/60 + 1/30))."""
    significance = math.erfc((0.75 - 0.025) / math.sqrt(0.25 * 0.05) / math.sqrt(2))
    assert significance == pytest.approx(8.9e-11, rel=0.01)
    values = [1.0 if n % 4 == 0 else -1.0 for n in range(60)] + [1.0] * 30
    # With every event the test is surer: at the last one as sure as that.
    assert fired_at(Stepd(significance * 1.001), values) == [89]
    assert fired_at(Stepd(significance * 0.999), values) == []
