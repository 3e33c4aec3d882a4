"""Bounds hold as often as they say, and are no wider than they have to be."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_retrain.gates.bounds import mean_lower, mean_upper, share_lower, share_upper

LEVELS = st.floats(0.001, 0.5)


def tail(hits: int, n: int, p: float) -> float:
    return math.fsum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(hits, n + 1))


@pytest.mark.parametrize(
    ("hits", "n", "level", "low", "high"),
    [
        (8, 10, 0.025, 0.4439, 0.9748),  # the textbook's 95% interval
        (0, 20, 0.05, 0.0, 0.1391),
        (59, 59, 0.05, 0.9505, 1.0),  # 59 without a fault show 95%
        (0, 0, 0.05, 0.0, 1.0),
    ],
)
def test_shares_that_are_known(hits: int, n: int, level: float, low: float, high: float) -> None:
    if n:
        assert share_lower(hits, n, level) == pytest.approx(low, abs=5e-5)
        assert share_upper(hits, n, level) == pytest.approx(high, abs=5e-5)
    else:
        assert (share_lower(hits, n, level), share_upper(hits, n, level)) == (low, high)


@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(1, n), st.just(n))), LEVELS)
def test_a_shares_bound_is_where_so_many_hits_are_as_rare_as_the_level(
    counts: tuple[int, int], level: float
) -> None:
    hits, n = counts
    assert tail(hits, n, share_lower(hits, n, level)) == pytest.approx(level, rel=1e-6)


@pytest.mark.parametrize("n", [5, 60, 300])
@pytest.mark.parametrize("p", [0.02, 0.5, 0.9, 0.99])
def test_a_share_is_below_its_bound_no_more_often_than_the_level(n: int, p: float) -> None:
    # Exactly, not by drawing: the probability of every count for which the bound is wrong.
    wrong = math.fsum(
        math.comb(n, k) * p**k * (1 - p) ** (n - k)
        for k in range(n + 1)
        if share_lower(k, n, 0.05) > p
    )
    assert wrong <= 0.05


@given(st.integers(1, 400), st.data(), LEVELS, LEVELS)
def test_more_hits_and_more_risk_raise_a_shares_bound(
    n: int, data: st.DataObject, one: float, other: float
) -> None:
    hits = data.draw(st.integers(0, n - 1))
    assert share_lower(hits, n, one) <= share_lower(hits + 1, n, one)
    assert share_lower(hits, n, min(one, other)) <= share_lower(hits, n, max(one, other))
    # The same share of more trials is known better.
    assert share_lower(hits, n, one) <= share_lower(2 * hits, 2 * n, one) + 1e-12
    assert share_lower(hits, n, one) <= hits / n <= share_upper(hits, n, one)


VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=60)


@given(VALUES, LEVELS, st.floats(-5, 5), st.floats(0.1, 10))
def test_a_means_bounds_enclose_it_and_move_with_the_scale(
    values: list[float], level: float, shift: float, scale: float
) -> None:
    mean = math.fsum(values) / len(values)
    low = mean_lower(values, level, low=0, high=1)
    high = mean_upper(values, level, low=0, high=1)
    assert 0 <= low <= mean <= high <= 1
    ends = {"low": shift, "high": shift + scale}
    moved = [min(max(shift + scale * v, ends["low"]), ends["high"]) for v in values]
    assert mean_lower(moved, level, **ends) == pytest.approx(shift + scale * low, abs=1e-4)


@given(st.integers(1, 300), st.integers(1, 300), LEVELS)
def test_more_of_the_same_narrows_a_means_bound(one: int, other: int, level: float) -> None:
    few, many = sorted((one, other))
    bounds = [mean_lower([0.0] * n, level, low=-1, high=1) for n in (few, many)]
    assert bounds[0] <= bounds[1] <= 0.0


def differences(rng: random.Random) -> float:
    """Of two classifiers that disagree on a tenth, the candidate 2 points worse."""
    return rng.choices((1.0, -1.0, 0.0), (0.04, 0.06, 0.9))[0]


def skewed(rng: random.Random) -> float:
    """Rarely bad: what a bound that takes means to be normal gets wrong."""
    return 0.0 if rng.random() < 0.03 else 1.0


def spread(rng: random.Random) -> float:
    return rng.betavariate(4, 2)


@pytest.mark.parametrize(
    ("draw", "mean", "low"), [(differences, -0.02, -1.0), (skewed, 0.97, 0.0), (spread, 2 / 3, 0.0)]
)
def test_a_mean_is_outside_of_its_bound_no_more_often_than_the_level(
    draw: Callable[[random.Random], float], mean: float, low: float
) -> None:
    rng, runs, level = random.Random(11), 600, 0.1
    wrong = [0, 0]
    for _ in range(runs):
        values = [draw(rng) for _ in range(60)]
        wrong[0] += mean_lower(values, level, low=low, high=1.0) > mean
        wrong[1] += mean_upper(values, level, low=low, high=1.0) < mean
    # 600 runs at 0.1: 60 expected at most, three deviations are 22.
    assert max(wrong) <= 82


def test_pairs_that_agree_show_what_the_same_number_apart_could_not() -> None:
    rng = random.Random(3)
    champion = [float(rng.random() < 0.9) for _ in range(400)]
    candidate = list(champion)
    # As good, and another answer to a fiftieth.
    for answer in (0.0, 1.0):
        for at in rng.sample([n for n, right in enumerate(champion) if right != answer], 4):
            candidate[at] = answer
    pairs = [mine - theirs for mine, theirs in zip(candidate, champion, strict=True)]
    paired = mean_lower(pairs, 0.05, low=-1, high=1)
    apart = share_lower(round(sum(candidate)), 400, 0.025) - share_upper(
        round(sum(champion)), 400, 0.025
    )
    # Points of accuracy that the candidate may be worse, as far as is shown.
    assert (round(-100 * paired, 1), round(-100 * apart, 1)) == (1.8, 5.7)


@pytest.mark.parametrize(
    ("values", "level", "low", "high"),
    [([0.5], 0.05, 1.0, 1.0), ([0.5], 0.6, 0.0, 1.0), ([1.5], 0.05, 0.0, 1.0)],
)
def test_what_has_no_bound_is_refused(
    values: list[float], level: float, low: float, high: float
) -> None:
    with pytest.raises(ValueError, match=r"level|outside"):
        mean_lower(values, level, low=low, high=high)
