"""Decompositions add up, whatever the parts; causes speak for themselves."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_drift.causes import likely_causes
from penstock_drift.evidence import Entry
from penstock_drift.explain import REST, Part, by_segment, by_signal
from penstock_drift.values import Key
from tests.unit.drift.toy import ToyChannel

share = st.floats(0, 0.5)
mean = st.floats(-100, 100)


@given(
    mean,
    mean,
    st.lists(st.builds(Part, st.just("x"), share, share, mean, mean), max_size=4),
)
def test_amounts_add_up_to_the_effect(before: float, after: float, parts: list[Part]) -> None:
    found = by_segment(before, after, parts)
    assert sum(each.amount for each in found) == pytest.approx(after - before, abs=1e-4)
    for each in found:
        if each.name != "not accounted for":
            assert each.within + each.mix == pytest.approx(each.amount, abs=1e-9)


def test_a_change_within_one_segment_is_its_own() -> None:
    # A fifth of the traffic goes from 0.02 to 0.42; the rest stays.
    found = by_segment(0.02, 0.10, [Part("task=route", 0.2, 0.2, 0.02, 0.42)])
    assert [(each.name, round(each.share, 9)) for each in found] == [
        ("task=route", 1.0),
        (REST, 0.0),
    ]
    assert found[0].within == pytest.approx(0.08)


def test_a_change_of_the_mix_is_no_change_within() -> None:
    # Nothing changes but shares: 10 % of the traffic have mean 1, then 30 %.
    parts = [Part("task=a", 0.1, 0.3, 1.0, 1.0), Part("task=b", 0.9, 0.7, 0.0, 0.0)]
    found = by_segment(0.1, 0.3, parts)
    assert sum(each.mix for each in found) == pytest.approx(0.2)
    assert [each.within for each in found] == [0.0, 0.0]


WHOLE = Key("m", "v")


def entry(
    signal: str, onset_ms: int, *, key: Key = WHOLE, routes: tuple[int, int] = (3, 3)
) -> Entry:
    evidence = ToyChannel(signal, {"n": 8, "sum": 12.0}).evidence()
    return Entry(
        key,
        dataclasses.replace(
            evidence,
            onset_ms=onset_ms,
            onset_earliest_ms=onset_ms - 1000,
            onset_latest_ms=onset_ms + 1000,
            route_version_before=routes[0],
            route_version_after=routes[1],
        ),
        5,
    )


def test_signals_share_the_evidence() -> None:
    other = entry("latency", 0, key=Key("m", "v", "task=a"))
    found = by_signal([entry("refusal", 0), entry("latency", 0), other])
    assert [(each.name, each.share) for each in found] == [("latency", 0.5), ("refusal", 0.5)]


MINUTES = 60_000


@pytest.mark.parametrize(
    ("lead", "others", "names"),
    [
        (entry("refusal", 0), [], ["unknown"]),
        (entry("refusal", 0, routes=(3, 4)), [], ["route_change"]),
        # Of unknown versions nothing follows.
        (entry("refusal", 0, routes=(0, 4)), [], ["unknown"]),
        (entry("refusal", 0), [entry("length", 30_000)], ["input"]),
        (entry("refusal", 0), [entry("length", 9 * MINUTES)], ["unknown"]),
        (entry("refusal", 0), [entry("latency", 0)], ["upstream"]),
        (entry("latency", 0), [entry("latency", 0, key=Key("m", "w"))], ["upstream"]),
        (
            entry("refusal", 0, routes=(3, 4)),
            [entry("length", 0)],
            ["route_change", "input"],
        ),
    ],
)
def test_causes(lead: Entry, others: list[Entry], names: list[str]) -> None:
    assert [cause.name for cause in likely_causes(lead, others)] == names
