"""Guardrails together: Wang and Ramdas's procedure by hand, and the error that it keeps."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_retrain.canary.multiplicity import rejected


def found(e_values: dict[str, float], among: int, level: float = 0.05) -> set[str]:
    logs = {name: math.log(value) for name, value in e_values.items()}
    return set(rejected(logs, among, level))


@pytest.mark.parametrize(
    ("e_values", "among", "names"),
    [
        ({"a": 79.9, "b": 1.0, "c": 1.0, "d": 1.0}, 4, set()),
        ({"a": 80.1, "b": 1.0, "c": 1.0, "d": 1.0}, 4, {"a"}),
        ({"a": 80.1, "b": 39.0, "c": 1.0, "d": 1.0}, 4, {"a"}),
        ({"a": 41.0, "b": 40.1, "c": 1.0, "d": 1.0}, 4, {"a", "b"}),
        ({"a": 20.1, "b": 20.2, "c": 20.3, "d": 20.4}, 4, {"a", "b", "c", "d"}),
        # The rest of the four have another source.
        ({"a": 41.0, "b": 40.1}, 4, {"a", "b"}),
        ({"a": 41.0}, 4, set()),
        ({"a": 80.1}, 4, {"a"}),
        ({}, 4, set()),
    ],
)
def test_by_hand(e_values: dict[str, float], among: int, names: set[str]) -> None:
    assert found(e_values, among) == names


@given(
    st.lists(st.lists(st.floats(0.0, 200.0), min_size=3, max_size=3), min_size=1, max_size=30),
    st.sets(st.sampled_from("abc"), min_size=1),
)
def test_the_share_of_false_ones_is_bounded_by_the_null_e_values(
    worlds: list[list[float]], true_nulls: set[str]
) -> None:
    """Whatever the e-values are: share of false rejections <= level / K * sum of the nulls'.

    So where those have mean at most 1 the expected share is at most the level, however they depend
    on each other: the procedure's proof, on any numbers.
    """
    for values in worlds:
        e_values = {name: max(value, 1e-12) for name, value in zip("abc", values, strict=True)}
        names = found(e_values, 3, 0.2)
        false = len(names & true_nulls) / max(len(names), 1)
        assert false <= 0.2 / 3 * sum(e_values[name] for name in true_nulls) + 1e-9
