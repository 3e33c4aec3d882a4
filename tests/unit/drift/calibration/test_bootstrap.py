"""Thresholds from quiet data."""

from __future__ import annotations

import itertools
import random
from collections import Counter

import pytest

from penstock_drift.calibration.bootstrap import NotEnough, calibrate, quiet_values, resampled
from penstock_drift.channels.channel import Watch
from penstock_drift.detectors.calibrated import make
from penstock_drift.records.values import Kind, SignalType
from penstock_drift.signals.declared import Declaration


def quiet(count: int = 4000, seed: int = 1) -> list[float]:
    draw = random.Random(seed)
    return [draw.gauss(0, 1) for _ in range(count)]


@pytest.mark.parametrize("name", ["page_hinkley", "adwin", "stepd"])
def test_the_threshold_has_the_mean_time_that_was_asked_for(name: str) -> None:
    found = calibrate(name, quiet(), 2000, seed=2, block=20)
    assert found.threshold is not None
    assert found.arl_low <= found.arl <= found.arl_high
    # On fresh values that it was not calibrated on.
    detector, alarms = make(name, found.threshold, None), 0
    for value in quiet(60_000, seed=3):
        detector.update(value)
        alarms += detector.fired
    assert 60_000 / max(1, alarms) >= 1000


def test_the_same_seed_gives_the_same() -> None:
    assert calibrate("page_hinkley", quiet(), 1000, seed=2) == calibrate(
        "page_hinkley", quiet(), 1000, seed=2
    )


def test_a_stricter_target_gives_a_stricter_threshold() -> None:
    lenient, strict = (
        calibrate("page_hinkley", quiet(), arl, seed=2).threshold for arl in (300, 3000)
    )
    assert lenient is not None
    assert strict is not None
    assert lenient < strict


def test_what_no_dial_can_quieten_has_no_threshold() -> None:
    # Half of the blocks lie ten deviations higher: no quiet data at all.
    values = [10.0 * (n // 200 % 2) for n in range(4000)]
    found = calibrate("adwin", values, 5000, block=200)
    assert found.threshold is None
    assert found.arl < 5000


def test_blocks_stay_together_and_everything_is_drawn_alike() -> None:
    found = resampled([float(n) for n in range(100)], 10, 100_000, seed=1)
    assert len(found) == 100_000
    assert all((b - a) % 100 == 1 for i, (a, b) in enumerate(itertools.pairwise(found))
               if (i + 1) % 10)  # fmt: skip
    counts = Counter(found)
    # The ends too, since blocks wrap.
    assert min(counts.values()) > 800
    assert max(counts.values()) < 1200


def test_quiet_values_are_what_a_channel_would_show() -> None:
    declaration = Declaration("refusal", SignalType.BINARY, Kind.OUTPUT, higher_is_worse=True)
    watch = Watch(baseline_observations=1000)
    draw = random.Random(1)
    values = [(1.0 if draw.random() < 0.1 else 0.0, n) for n in range(2000)]
    found = quiet_values(declaration, watch, values)
    assert len(found) == 1000
    # Standardised: 0.1 in deviations of 0.3.
    assert sorted(set(found)) == [pytest.approx(-0.33, abs=0.05), pytest.approx(3, abs=0.4)]
    with pytest.raises(NotEnough, match="at least 1500 values"):
        quiet_values(declaration, watch, values[:1200])
    with pytest.raises(NotEnough, match="of type category"):
        quiet_values(Declaration("lang", SignalType.CATEGORY, Kind.OUTPUT), watch, [])
