"""e-BH: against its definition, and the promise that it makes."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_drift.judge.multiplicity import rejected


@pytest.mark.parametrize(
    ("values", "among", "found"),
    [
        # One of 100 at alpha 0.01 needs 10,000; two need 5,000 each.
        ([9_999.0], 100, 0),
        ([10_001.0], 100, 1),
        ([5_001.0, 5_001.0], 100, 2),
        ([10_001.0, 4_999.0], 100, 1),
        # The weaker brings the stronger in: k* is the largest that holds.
        ([5_002.0, 5_001.0, 10.0], 100, 2),
        ([3_334.0, 3_334.0, 3_334.0], 100, 3),
        ([100.1], 1, 1),
        ([], 100, 0),
        ([10_001.0], 0, 1),
    ],
)
def test_table(values: list[float], among: int, found: int) -> None:
    logs = {number: math.log(value) for number, value in enumerate(values)}
    assert len(rejected(logs, among, 0.01)) == found


@given(
    st.lists(st.floats(0, 40), max_size=12),
    st.integers(0, 30),
    st.sampled_from([0.5, 0.05, 1e-4]),
)
def test_is_what_the_paper_defines(values: list[float], more: int, alpha: float) -> None:
    among = len(values) + more
    logs = dict(enumerate(values))
    ordered = sorted(values, reverse=True)
    # With a margin, so that rounding at the boundary is no failure.
    for margin, compare in ((1e-9, "at most"), (-1e-9, "at least")):
        k_star = max(
            (
                k
                for k in range(1, len(ordered) + 1)
                if math.log(k) + ordered[k - 1] >= math.log(among / alpha) + margin
            ),
            default=0,
        )
        found = len(rejected(logs, among, alpha))
        assert (
            found >= k_star
            if compare == "at most"
            else found <= k_star + values.count(ordered[k_star - 1] if k_star else math.inf)
        )


@given(st.lists(st.floats(0, 40), min_size=1, max_size=12), st.integers(0, 30))
def test_never_rejects_what_would_not_do_alone(values: list[float], more: int) -> None:
    logs = dict(enumerate(values))
    for watched in rejected(logs, len(values) + more, 0.01):
        assert logs[watched] >= -math.log(0.01) - 1e-9
