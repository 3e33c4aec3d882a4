"""A signal's values over all traffic divide over segments, and the parts are all of it."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_drift.channels.channel import SignalChannel, Watch
from penstock_drift.channels.parts import MAX_PARTS, Parts
from penstock_drift.findings.explain import by_segment, mix_share, parts_of
from penstock_drift.records.values import SignalType
from penstock_drift.signals.declared import Declaration
from tests.unit.drift.channels.test_channel import declared, seen

KINDS = (SignalType.NUMBER, SignalType.BINARY, SignalType.BOUNDED)
TASKS = [f"task={'long-name-' * 2}{number}" for number in range(14)]


def values(
    declaration: Declaration, draw: random.Random, shares: list[float], means: list[float]
) -> Iterator[tuple[float, str]]:
    while True:
        (place,) = draw.choices(range(len(shares)), shares)
        mean = means[place]
        match declaration.type:
            case SignalType.NUMBER:
                yield draw.gauss(10 * mean, 1), TASKS[place]
            case SignalType.BINARY:
                yield float(draw.random() < mean), TASKS[place]
            case _:
                yield draw.betavariate(10 * mean, 10 * (1 - mean)), TASKS[place]


def run(
    kind: SignalType,
    after: tuple[list[float], list[float]],
    means: list[float] | None = None,
    *,
    restart: int = 0,
) -> SignalChannel:
    declaration, watch = declared(kind), Watch(baseline_observations=400)
    draw = random.Random(3)
    channel = SignalChannel(declaration, watch)
    before = values(declaration, draw, [0.5, 0.3, 0.2], means or [0.1, 0.2, 0.3])
    since = values(declaration, draw, *after)
    for number in range(1500):
        value, task = next(before if number < 900 else since)
        channel.update(value, seen(number), 1, (task, "client="))
        if restart and number % restart == 0:
            state = json.loads(json.dumps(channel.state(), allow_nan=False))
            channel = SignalChannel.from_state(declaration, watch, state)
    return channel


@pytest.mark.parametrize("kind", KINDS)
def test_parts_are_all_of_the_signals_own_values(kind: SignalType) -> None:
    channel = run(kind, ([0.5, 0.3, 0.2], [0.1, 0.2, 0.9]))
    evidence = channel.evidence()
    parts = parts_of(evidence)
    assert [part.name for part in parts] == TASKS[:3]
    for shares in ([p.share_before for p in parts], [p.share_after for p in parts]):
        assert sum(shares) == pytest.approx(1)
    before, after = evidence.before.estimate, evidence.after.estimate
    whole = [
        sum(part.share_before * part.mean_before for part in parts),
        sum(part.share_after * part.mean_after for part in parts),
    ]
    assert whole == pytest.approx([before, after], rel=1e-12)
    found = by_segment(before, after, parts)
    assert found[0].name == TASKS[2]
    assert "not accounted for" not in {each.name for each in found}
    assert abs(mix_share(evidence)) < 0.2


@pytest.mark.parametrize("kind", KINDS)
def test_a_shift_of_the_traffic_is_seen_as_one(kind: SignalType) -> None:
    means = [0.1, 0.5, 0.9]
    evidence = run(kind, ([0.05, 0.05, 0.9], means), means).evidence()
    assert mix_share(evidence) > 0.8


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_through_json_goes_on_with_the_same_parts(kind: SignalType) -> None:
    after = ([0.2, 0.2, 0.6], [0.1, 0.4, 0.9])
    assert run(kind, after, restart=37).evidence() == run(kind, after).evidence()


def test_what_segments_add_to_a_state_is_bounded() -> None:
    draw, sizes = random.Random(1), []
    for segments in (0, len(TASKS)):
        channel = SignalChannel(declared(SignalType.NUMBER), Watch(baseline_observations=400))
        for number in range(3000):
            task = (draw.choice(TASKS[:segments]),) if segments else ()
            channel.update(draw.lognormvariate(4, 0.6), seen(number), 1, task)
        sizes.append(len(json.dumps(channel.state(), separators=(",", ":"))))
        assert len(channel.evidence().parts) <= MAX_PARTS + 1
    assert sizes[1] - sizes[0] < 900


@settings(max_examples=50)
@given(st.lists(st.tuples(st.sampled_from(TASKS), st.integers(-50, 50), st.booleans())))
def test_no_value_is_lost_and_none_counted_twice(drawn: list[tuple[str, int, bool]]) -> None:
    parts, counts = Parts(), [0, 0, 0, 0]
    for number, (task, value, again) in enumerate(drawn):
        if number % 2:
            parts.learn((task,), value)
            counts[0], counts[1] = counts[0] + 1, counts[1] + value
        else:
            if again:
                parts.begin()
                counts[2] = counts[3] = 0
            parts.test((task,), value)
            counts[2], counts[3] = counts[2] + 1, counts[3] + value
        parts = Parts.from_state(json.loads(json.dumps(parts.state())))
    told = parts.tallies()
    assert [
        sum(each.before for each in told),
        sum(each.total_before for each in told),
        sum(each.after for each in told),
        sum(each.total_after for each in told),
    ] == counts
    assert len(told) <= MAX_PARTS + 1
