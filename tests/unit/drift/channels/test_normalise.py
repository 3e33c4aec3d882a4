"""From numbers to what detectors compare."""

from __future__ import annotations

import itertools
import json
import math
import random
import statistics

import pytest

from penstock_drift.channels.normalise import Normaliser, usable

HOUR_MS = 3_600_000


def normaliser(**chosen: object) -> Normaliser:
    defaults: dict[str, object] = {
        "logarithm": False, "season": "none", "periods": 3, "block": 1, "baseline": 2000,
    }  # fmt: skip
    return Normaliser(**(defaults | chosen))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "good"),
    [(0.0, True), (1e12, True), (1e13, False), (math.nan, False), (math.inf, False)],
)
def test_what_may_be_seen(value: float, good: bool) -> None:
    assert usable(value) is good


def test_lengths_come_out_standard() -> None:
    draw = random.Random(1)
    made = normaliser(logarithm=True)
    found = [made.push(draw.lognormvariate(4, 0.8), n) for n in range(4000)]
    # A quarter of the baseline gives units and autoregression.
    assert next(n for n, z in enumerate(found) if z is not None) == 500
    values = [z for z in found if z is not None]
    assert statistics.fmean(values) == pytest.approx(0, abs=0.1)
    assert statistics.pstdev(values) == pytest.approx(1, abs=0.1)
    # And back again: the centre is the median.
    assert made.raw(0.0) == pytest.approx(math.exp(4), rel=0.3)


def test_one_absurd_value_moves_no_unit() -> None:
    def at_the_end(odd: float) -> float | None:
        draw = random.Random(2)
        made = normaliser()
        for n in range(1000):
            made.push(odd if n == 10 else draw.gauss(5, 2), n)
        return made.push(7.0, 1000)

    usual, odd = at_the_end(5.0), at_the_end(1e9)
    assert usual is not None
    assert odd == pytest.approx(usual, abs=0.15)


@pytest.mark.parametrize("rho", [0.0, 0.5, -0.4, 0.8])
def test_neighbours_that_resemble_each_other_come_out_independent(rho: float) -> None:
    draw = random.Random(3)
    made, value, found = normaliser(), 0.0, []
    for n in range(6000):
        value = rho * value + draw.gauss(0, math.sqrt(1 - rho * rho))
        z = made.push(value, n)
        if z is not None:
            found.append(z)
    mean = statistics.fmean(found)
    left = statistics.fmean((a - mean) * (b - mean) for a, b in itertools.pairwise(found))
    assert left / statistics.pvariance(found) == pytest.approx(0, abs=0.1)
    assert statistics.pstdev(found) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(("season", "hours"), [("day", 24), ("week", 168)])
def test_the_time_of_the_day_or_the_week_is_taken_out(season: str, hours: int) -> None:
    draw = random.Random(4)
    made, found = normaliser(season=season, periods=3), []
    step = HOUR_MS // (60 if hours == 24 else 10)
    for n in range(5 * hours * HOUR_MS // step):
        phase = 2 * math.pi * n * step / (hours * HOUR_MS)
        z = made.push(10 + 2 * math.sin(phase) + draw.gauss(0, 1), n * step)
        if z is not None:
            found.append((phase % (2 * math.pi), z))
    rising = [z for phase, z in found if phase < math.pi]
    falling = [z for phase, z in found if phase >= math.pi]
    assert statistics.fmean(rising) - statistics.fmean(falling) == pytest.approx(0, abs=0.3)
    assert made.covers(3 * hours * HOUR_MS)
    assert not made.covers(3 * hours * HOUR_MS - 1)
    assert 0 < made.allowance < 0.6


@pytest.mark.parametrize("noise", [1.0, 1e-7])
def test_hours_without_traffic_leave_nothing_open(noise: float) -> None:
    draw = random.Random(4)
    made = normaliser(season="day")
    for day, minute in itertools.product(range(4), range(8 * 60, 20 * 60)):
        value = minute // 60 + draw.gauss(0, noise)
        made.push(value, day * 24 * HOUR_MS + minute * 60_000)
    assert made.tuned
    # Some 150 values an hour: 1.645 deviations over the root of that.
    assert 0.08 < made.allowance < 0.2


def test_blocks_are_averaged() -> None:
    draw = random.Random(5)
    made = normaliser(block=8)
    found = [z for n in range(8000) if (z := made.push(draw.gauss(3, 1), n)) is not None]
    assert len(found) == pytest.approx((8000 - 500) / 8, abs=2)
    assert statistics.pstdev(found) == pytest.approx(1, abs=0.15)


def test_a_constant_is_not_divided_by_nothing() -> None:
    made = normaliser()
    found = [made.push(7.0, n) for n in range(2000)]
    assert found[-1] == 0
    odd = made.push(8.0, 2000)
    assert odd is not None
    assert odd > 4


@pytest.mark.parametrize("season", ["none", "day", "week"])
@pytest.mark.parametrize("block", [1, 3])
def test_a_state_through_json_goes_on_bit_by_bit(season: str, block: int) -> None:
    draw = random.Random(6)
    chosen = {"season": season, "block": block, "baseline": 400, "periods": 2}
    whole, parted = normaliser(**chosen), normaliser(**chosen)
    for n in range(3000):
        if n % 53 == 0:
            state = json.loads(json.dumps(parted.state()))
            parted = normaliser(**chosen).restore(state)
        value = draw.gauss(math.sin(n / 100), 1)
        time_ms = n * HOUR_MS // (20 if season != "week" else 3)
        assert parted.push(value, time_ms) == whole.push(value, time_ms)
        assert (parted.scaled, parted.tuned) == (whole.scaled, whole.tuned)
    assert whole.tuned
