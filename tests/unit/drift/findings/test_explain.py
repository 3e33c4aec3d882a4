"""Decompositions add up, whatever the parts; causes speak for themselves."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_drift.findings.causes import likely_causes
from penstock_drift.findings.explain import REST, Part, by_segment, by_signal, mix_share, parts_of
from penstock_drift.records.evidence import Entry, Interval, PartTally, SignalEvidence
from penstock_drift.records.values import Key
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


count = st.integers(0, 5000)
tallies = st.builds(
    lambda name, before, mean_before, after, mean_after: PartTally(
        f"task={name}", before, before * mean_before, after, after * mean_after
    ),
    st.text("abc", max_size=3),
    count,
    mean,
    count,
    mean,
)


def told(parts: list[PartTally]) -> SignalEvidence:
    """The evidence of a signal whose values divide so over segments."""
    before, after = sum(part.before for part in parts), sum(part.after for part in parts)
    means = (
        sum(part.total_before for part in parts) / before if before else 0.0,
        sum(part.total_after for part in parts) / after if after else 0.0,
    )
    return dataclasses.replace(
        ToyChannel("latency").evidence(),
        before=Interval(means[0], means[0], means[0]),
        after=Interval(means[1], means[1], means[1]),
        observations_before=before,
        observations_after=after,
        parts=tuple(parts),
    )


@given(st.lists(tallies, min_size=1, max_size=6, unique_by=lambda part: part.segment))
def test_within_and_mix_of_the_tallies_add_up_to_the_whole_effect(parts: list[PartTally]) -> None:
    evidence = told(parts)
    before, after = evidence.before.estimate, evidence.after.estimate
    found = by_segment(before, after, parts_of(evidence))
    if not (evidence.observations_before and evidence.observations_after):
        assert parts_of(evidence) == []
        return
    assert {each.name for each in found} <= {p.segment for p in parts} | {"no task"}
    close = pytest.approx(after - before, abs=1e-9)
    assert sum(each.amount for each in found) == close
    assert sum(each.within for each in found) + sum(each.mix for each in found) == close


def test_what_a_shift_of_the_traffic_makes_is_told_apart_from_a_change_within() -> None:
    # A tenth of the traffic has mean 1, then three tenths: nothing else has changed.
    shifted = told([PartTally("task=a", 200, 200, 300, 300), PartTally("task=b", 1800, 0, 700, 0)])
    assert mix_share(shifted) == pytest.approx(1)
    # The same rise, with the traffic as it was.
    within = told([PartTally("task=a", 200, 200, 100, 100), PartTally("task=b", 1800, 0, 900, 200)])
    assert mix_share(within) == pytest.approx(0)
    # Half of the rise by each.
    both = told([PartTally("task=a", 500, 500, 700, 700), PartTally("task=b", 500, 0, 300, 150)])
    found = {c.name: c for c in by_segment(0.5, 0.85, parts_of(both))}
    assert sum(each.within for each in found.values()) == pytest.approx(0.4 * 0.5)
    assert sum(each.mix for each in found.values()) == pytest.approx(0.2 * 0.75)
    lead = Entry(WHOLE, shifted, 5)
    assert [cause.name for cause in likely_causes(lead, [])] == ["traffic_mix"]
    assert [cause.name for cause in likely_causes(Entry(WHOLE, within, 5), [])] == ["unknown"]


def test_a_segment_that_came_is_all_mix() -> None:
    came = told([PartTally("task=a", 1000, 100, 500, 50), PartTally("task=new", 0, 0, 500, 500)])
    found = {each.name: each for each in by_segment(0.1, 0.55, parts_of(came))}
    assert [found[name].within for name in ("task=a", "task=new")] == [0, 0]
    assert sum(each.mix for each in found.values()) == pytest.approx(0.45)


def test_a_label_that_was_not_watched_all_the_while_says_nothing() -> None:
    parts = [PartTally("task=a", 100, 10, 100, 50), PartTally("task=", 100, 10, 100, 10)]
    late = [PartTally("client=x", 0, 0, 200, 60)]
    evidence = dataclasses.replace(told(parts), parts=(*parts, *late))
    assert [part.name for part in parts_of(evidence)] == ["task=a", "no task"]
    assert parts_of(dataclasses.replace(told(parts), parts=tuple(late))) == []
    assert mix_share(dataclasses.replace(told(parts), parts=())) == 0


def test_the_label_whose_values_differ_is_told_not_one_with_a_large_value() -> None:
    # Nine tenths of the traffic are one client's, whose own change is the whole's.
    clients = [
        PartTally("client=big", 900, 9, 900, 99),
        PartTally("client=small", 100, 1, 100, 11),
    ]
    tasks = [PartTally("task=a", 200, 2, 200, 102), PartTally("task=b", 800, 8, 800, 8)]
    evidence = dataclasses.replace(told(tasks), parts=(*clients, *tasks))
    found = by_segment(0.01, 0.11, parts_of(evidence))
    assert [(each.name, round(each.share, 9)) for each in found] == [
        ("task=a", 1.0),
        ("task=b", 0.0),
    ]


WHOLE = Key("m", "v")


def entry(
    signal: str,
    onset_ms: int,
    *,
    key: Key = WHOLE,
    routes: tuple[int, int] = (3, 3),
    adapters: tuple[str | None, str | None] = (None, None),
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
            adapter_before=adapters[0],
            adapter_after=adapters[1],
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
        # The route changed, and what answers did not.
        (entry("refusal", 0, routes=(3, 4), adapters=("a-1", "a-1")), [], ["route_change"]),
        (entry("refusal", 0, routes=(3, 4), adapters=(None, "a-2")), [], ["route_change"]),
        (entry("refusal", 0, routes=(3, 4), adapters=("a-1", "a-2")), [], ["adapter"]),
        (entry("refusal", 0, routes=(3, 4), adapters=("", "a-1")), [], ["adapter"]),
        (entry("refusal", 0, routes=(3, 4), adapters=("a-1", "")), [], ["adapter"]),
        (entry("refusal", 0, routes=(3, 3), adapters=("a-1", "a-2")), [], ["unknown"]),
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
