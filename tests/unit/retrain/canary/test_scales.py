"""Values to scores: unbounded metrics get a bound that is stated."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_retrain.canary import Bounds, Limit, MetricSpec, Rank, Scale
from penstock_retrain.canary.scales import scale_from_json, scale_to_json

SCALES: list[Scale] = [Bounds(), Bounds(-3.0, 7.0), Limit(1.5), Rank((1.0, 2.0, 2.0, 3.0))]


@pytest.mark.parametrize(
    ("scale", "value", "place"),
    [
        (Bounds(-3.0, 7.0), 2.0, 0.5),
        (Bounds(-3.0, 7.0), -9.0, 0.0),
        (Bounds(-3.0, 7.0), 70.0, 1.0),
        (Limit(1.5), 1.5, 0.0),
        (Limit(1.5), 1.6, 1.0),
        (Rank((1.0, 2.0, 2.0, 3.0)), 0.0, 0.0),
        (Rank((1.0, 2.0, 2.0, 3.0)), 2.0, 0.5),
        (Rank((1.0, 2.0, 2.0, 3.0)), 2.5, 0.75),
        (Rank((1.0, 2.0, 2.0, 3.0)), math.inf, 1.0),
    ],
)
def test_place(scale: Scale, value: float, place: float) -> None:
    assert scale.place(value) == place


def test_a_limit_of_the_champions_latency() -> None:
    limit = Limit.of([index / 100 for index in range(1, 101)])
    assert limit == Limit(0.95)
    slow = MetricSpec("latency_s", limit, higher_is_better=False)
    assert (slow.score(0.95), slow.score(0.96)) == (1.0, 0.0)


@pytest.mark.parametrize("scale", SCALES)
def test_json(scale: Scale) -> None:
    assert scale_from_json(json.loads(json.dumps(scale_to_json(scale)))) == scale


@given(st.sampled_from(SCALES), st.floats(allow_nan=False), st.floats(allow_nan=False))
def test_scores_are_bounded_and_keep_the_order(scale: Scale, one: float, two: float) -> None:
    low, high = sorted((one, two))
    assert 0.0 <= scale.place(low) <= scale.place(high) <= 1.0
    lower = MetricSpec("cost", scale, higher_is_better=False)
    assert lower.score(low) >= lower.score(high)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Bounds(1.0, 1.0), "low must be below high"),
        (lambda: Bounds(0.0, math.inf), "high is inf"),
        (lambda: Limit(math.nan), "limit is nan"),
        (lambda: Limit.of([]), "needs values of the champion"),
        (lambda: Rank((2.0, 1.0)), "rising order"),
        (lambda: Rank(()), "rising order"),
        (lambda: scale_from_json({"kind": "logarithm"}), "use bounds, limit or rank"),
        (lambda: MetricSpec("accuracy").score(math.nan), "accuracy: the value is not a number"),
    ],
)
def test_what_is_wrong_is_named(make, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        make()
