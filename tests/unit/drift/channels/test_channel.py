"""One signal of one key: from its first value to a finding, through JSON at any point."""

from __future__ import annotations

import dataclasses
import json
import math
import random
from collections.abc import Callable

import pytest

from penstock_drift.channels.bank import CatalogueBank, watch_of
from penstock_drift.channels.channel import SignalChannel, Watch
from penstock_drift.findings.explain import by_segment, parts_of
from penstock_drift.policy.document import MIN_BLOCKS, default_document, parse_policy
from penstock_drift.records.evidence import Channel, Exemplar
from penstock_drift.records.values import Kind, SignalType, Source, Value
from penstock_drift.signals.declared import Declaration, Transform

Draw = Callable[[random.Random, bool], Value]


def seen(number: int) -> Exemplar:
    # As long as request ids are.
    request_id = f"req-{number:032x}"
    return Exemplar(request_id, Source("responses", number % 4, number), number * 1000, math.nan)


def declared(kind: SignalType, **more: object) -> Declaration:
    return Declaration(kind.value, kind, Kind.OUTPUT, **more)  # type: ignore[arg-type]


def number(draw: random.Random, changed: bool) -> Value:
    return draw.lognormvariate(4.4 if changed else 4, 0.6)


def event(draw: random.Random, changed: bool) -> Value:
    return 1.0 if draw.random() < (0.1 if changed else 0.02) else 0.0


def score(draw: random.Random, changed: bool) -> Value:
    return draw.betavariate(6 if changed else 8, 2)


def language(draw: random.Random, changed: bool) -> Value:
    return draw.choices(["en", "de", "fr", "sw"], [80, 15, 4, 10 if changed else 0])[0]


def words(draw: random.Random, changed: bool) -> Value:
    bins: dict[int, int] = {}
    for _ in range(40):
        found = int(64 * draw.random() ** (1.5 if changed else 1))
        bins[found] = bins.get(found, 0) + 1
    return tuple(sorted(bins.items()))


def topic(draw: random.Random, changed: bool) -> Value:
    return tuple(draw.gauss(0.1 if changed and n == 2 else 0.0, 0.1) for n in range(8))


CASES = [
    (declared(SignalType.NUMBER, transform=Transform.LOG), number),
    (declared(SignalType.BINARY, higher_is_worse=True), event),
    (declared(SignalType.BOUNDED, higher_is_worse=False), score),
    (declared(SignalType.CATEGORY), language),
    (declared(SignalType.COUNTS, size=64), words),
    (declared(SignalType.VECTOR, size=8), topic),
]
NAMED = pytest.mark.parametrize(
    ("declaration", "draw_value"), CASES, ids=[each.name for each, _ in CASES]
)
QUIET = 3000


def run(
    channel: SignalChannel, draw_value: Draw, quiet: int, changed: int, seed: int = 1
) -> SignalChannel:
    draw = random.Random(seed)
    for count in range(quiet + changed):
        route = 7 if count < quiet else 8
        channel.update(draw_value(draw, count >= quiet), seen(count), route)
    return channel


@NAMED
def test_warms_is_armed_and_finds_the_change(declaration: Declaration, draw_value: Draw) -> None:
    channel = run(SignalChannel(declaration, Watch()), draw_value, 1999, 0)
    assert channel.warming
    assert (channel.log_evidence, channel.evidence().votes) == (0.0, ())
    channel = run(SignalChannel(declaration, Watch()), draw_value, 2000, 0)
    assert not channel.warming
    channel = run(SignalChannel(declaration, Watch()), draw_value, QUIET, 0)
    assert channel.log_evidence < math.log(1e4)
    channel = run(SignalChannel(declaration, Watch()), draw_value, QUIET, 600)
    assert channel.log_evidence >= math.log(1e4)
    evidence = channel.evidence()
    assert evidence.log_evidence == channel.log_evidence
    assert {vote.channel for vote in evidence.votes} == {Channel.E_DETECTORS}
    assert abs(evidence.onset_ms / 1000 - QUIET) <= 60
    assert evidence.onset_earliest_ms <= evidence.onset_ms <= evidence.onset_latest_ms
    assert evidence.onset_earliest_ms / 1000 <= QUIET + 5
    assert evidence.onset_latest_ms / 1000 >= QUIET - 5
    assert evidence.observations_after == pytest.approx(600, abs=60)
    assert (evidence.route_version_before, evidence.route_version_after) == (7, 8)
    effect = evidence.effect
    assert effect.low < effect.estimate < effect.high
    assert not effect.low <= 0 <= effect.high
    assert len(evidence.exemplars_before) == len(evidence.exemplars_after) == 3
    assert all(each.time_ms < 2_000_000 for each in evidence.exemplars_before)
    assert all(each.time_ms >= evidence.onset_ms for each in evidence.exemplars_after)
    assert len(evidence.histogram.before) == len(evidence.histogram.after)


@NAMED
def test_a_state_through_json_goes_on_bit_by_bit_and_is_small(
    declaration: Declaration, draw_value: Draw
) -> None:
    watch = Watch(baseline_observations=600, rebase_after=800)
    whole, parted = SignalChannel(declaration, watch), SignalChannel(declaration, watch)
    draw, largest = random.Random(5), 0
    for count in range(3500):
        if count % 37 == 0:
            text = json.dumps(parted.state(), allow_nan=False, separators=(",", ":"))
            largest = max(largest, len(text))
            parted = SignalChannel.from_state(declaration, watch, json.loads(text))
        value = draw_value(draw, count >= 1200)
        whole.update(value, seen(count))
        parted.update(value, seen(count))
        assert parted.log_evidence == whole.log_evidence, count
    assert parted.evidence() == whole.evidence()
    assert parted.status() == whole.status()
    assert whole.evidence().baseline == 2
    assert largest < 2000


@NAMED
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, (), ((3, 0),), (math.nan,) * 8])
def test_what_is_not_usable_changes_nothing(
    declaration: Declaration, draw_value: Draw, bad: Value
) -> None:
    watch = Watch(baseline_observations=200)
    for count in (100, 400):
        channel = run(SignalChannel(declaration, watch), draw_value, count, 0)
        before = json.dumps(channel.state())
        channel.update(bad, seen(count))
        after = json.loads(json.dumps(channel.state()))
        # The onset is told of the time of every value, before it is looked at.
        assert {**after, "onset": 0} == {**json.loads(before), "onset": 0}


def test_evidence_goes_when_the_change_is_gone() -> None:
    declaration, draw_value = CASES[1]
    channel, draw = SignalChannel(declaration, Watch()), random.Random(1)
    highest = 0.0
    for count in range(6000):
        channel.update(draw_value(draw, 2500 <= count < 3200), seen(count))
        highest = max(highest, channel.log_evidence)
    assert highest > math.log(1e10)
    assert channel.log_evidence < math.log(1e3)


def test_a_change_that_lasts_becomes_the_new_baseline() -> None:
    declaration, draw_value = CASES[1]
    channel = run(SignalChannel(declaration, Watch(rebase_after=1000)), draw_value, 2500, 1800)
    assert channel.warming
    assert channel.evidence().baseline == 2
    draw = random.Random(9)
    for count in range(4300, 8000):
        channel.update(draw_value(draw, True), seen(count))
    assert not channel.warming
    assert channel.status().baseline_mean == pytest.approx(0.1, abs=0.02)
    assert channel.log_evidence < math.log(1e4)


def test_calibrated_detectors_vote_where_they_have_a_threshold() -> None:
    declaration, draw_value = CASES[0]
    watch = Watch(
        detectors=("adwin", "page_hinkley", "stepd"),
        thresholds={"adwin": 1e-4, "page_hinkley": 100.0},
    )
    channel = run(SignalChannel(declaration, watch), draw_value, QUIET, 0)
    assert channel.fired == 0
    channel = run(SignalChannel(declaration, watch), draw_value, QUIET, 400)
    assert channel.fired == 2
    votes = {vote.detector: vote.fired for vote in channel.evidence().votes}
    assert votes["river.ADWIN(delta=0.0001)"]
    assert votes["river.PageHinkley(threshold=100)"]
    assert votes["stepd(significance=0.003), uncalibrated"] is False


@pytest.mark.parametrize("name", ["adwin", "seed", "stepd", "page_hinkley"])
def test_a_state_with_calibrated_detectors_goes_on_too(name: str) -> None:
    declaration, draw_value = CASES[0]
    watch = Watch(baseline_observations=400, detectors=(name,), thresholds={})
    whole, parted = SignalChannel(declaration, watch), SignalChannel(declaration, watch)
    draw = random.Random(5)
    for count in range(1500):
        if count % 41 == 0:
            text = json.dumps(parted.state(), allow_nan=False)
            parted = SignalChannel.from_state(declaration, watch, json.loads(text))
        value = draw_value(draw, count >= 1000)
        whole.update(value, seen(count))
        parted.update(value, seen(count))
    assert json.dumps(parted.state()) == json.dumps(whole.state())


def test_what_is_chosen_otherwise_begins_a_new_baseline() -> None:
    declaration, draw_value = CASES[0]
    state = run(SignalChannel(declaration, Watch()), draw_value, 2500, 0).state()
    again = SignalChannel.from_state(declaration, Watch(block=4), state)
    assert again.warming
    assert again.evidence().baseline == 2
    kept = SignalChannel.from_state(declaration, Watch(rebase_after=9, detectors=("adwin",)), state)
    assert not kept.warming


def test_a_state_of_other_detectors_begins_a_new_baseline() -> None:
    declaration, draw_value = CASES[0]
    state = run(SignalChannel(declaration, Watch()), draw_value, 2500, 0).state()
    form, _, rest = state["of"].partition("/")
    former = {**state, "of": f"{int(form) - 1}/{rest}"}
    again = SignalChannel.from_state(declaration, Watch(), former)
    assert again.warming
    assert again.evidence().baseline == 2


def test_a_state_of_another_measure_begins_a_new_baseline() -> None:
    declaration, draw_value = CASES[0]
    state = run(SignalChannel(declaration, Watch()), draw_value, 2500, 0).state()
    other = dataclasses.replace(declaration, measure=2)
    again = SignalChannel.from_state(other, Watch(), state)
    assert (again.warming, again.evidence().baseline) == (True, 2)
    kept = SignalChannel.from_state(other, Watch(), again.state())
    assert kept.evidence().baseline == 2


def test_a_season_is_no_change() -> None:
    declaration = declared(SignalType.NUMBER)
    watch = Watch(season="day", season_periods=3, baseline_observations=2000)
    channel, draw = SignalChannel(declaration, watch), random.Random(2)
    step, highest = 60_000, 0.0
    for count in range(8 * 1440):
        season = math.sin(2 * math.pi * count / 1440)
        exemplar = Exemplar("r", Source("responses", 0, count), count * step, math.nan)
        channel.update(draw.gauss(season, 1), exemplar)
        highest = max(highest, channel.log_evidence)
        assert channel.warming is (count < 3 * 1440)
    assert highest < math.log(1e4)


def test_a_change_is_found_where_there_is_no_traffic_at_night() -> None:
    watch = Watch(season="day", season_periods=3)
    channel, draw = SignalChannel(declared(SignalType.NUMBER), watch), random.Random(2)
    # Five days, and two hours of the sixth, from eight in the morning to eight in the evening.
    for minute in range((5 * 24 + 10) * 60):
        day, hour = divmod(minute // 60, 24)
        if 8 <= hour < 20:
            exemplar = Exemplar("r", Source("responses", 0, minute), minute * 60_000, math.nan)
            channel.update(draw.gauss(hour / 2 + (day == 5), 1), exemplar)
    assert not channel.warming
    assert channel.log_evidence >= math.log(1e4)


@pytest.mark.parametrize(
    ("declaration", "of_block"),
    [
        (declared(SignalType.NUMBER), lambda draw, shift: draw.gauss(shift, 1)),
        (declared(SignalType.BOUNDED), lambda draw, shift: 0.5 + 0.15 * draw.gauss(shift, 1)),
        (declared(SignalType.BINARY), lambda draw, shift: draw.random() < 0.2 + 0.4 * shift),
    ],
    ids=["number", "bounded", "binary"],
)
def test_with_the_fewest_blocks_a_change_by_two_deviations_of_them_is_found(
    declaration: Declaration, of_block: Callable[[random.Random, float], float]
) -> None:
    watch = Watch(baseline_observations=MIN_BLOCKS * 16, block=16)
    channel, draw = SignalChannel(declaration, watch), random.Random(1)
    for count in range(16 * 240):
        # A deviation of a block's mean is a quarter of a value's.
        channel.update(float(of_block(draw, 0.5 if count >= 16 * 120 else 0)), seen(count))
    assert channel.log_evidence >= math.log(1e4)


def test_the_bank_makes_what_the_policy_asks_for() -> None:
    policy = parse_policy("signals: {number: {enabled: false}, binary: {block: 5}}")
    bank = CatalogueBank({each.name: each for each, _ in CASES})
    assert bank.channel("number", policy) is None
    assert bank.channel("unheard_of", policy) is None
    assert bank.channel("bounded", policy) is not None
    default = parse_policy(default_document())
    assert not bank.same("number", default, policy)
    assert not bank.same("binary", default, policy)
    assert bank.same("bounded", default, policy)
    watch = watch_of(policy, CASES[1][0])
    assert watch == Watch(block=5, rebase_after=20_000)


def test_new_words_are_told_by_the_segment_that_uses_them() -> None:
    channel = SignalChannel(declared(SignalType.COUNTS, size=64), Watch())
    draw = random.Random(3)
    for count in range(QUIET + 600):
        desk = draw.choice(("north", "south", "west"))
        changed = count >= QUIET and desk == "south"
        segments = (f"desk={desk}", f"channel={draw.choice(('chat', 'mail'))}")
        channel.update(words(draw, changed), seen(count), 1, segments)
    evidence = channel.evidence()
    assert evidence.log_evidence >= math.log(1e4)
    found = by_segment(0.0, evidence.after.estimate, parts_of(evidence))
    assert [found[0].name, {each.name for each in found}] == [
        "desk=south",
        {"desk=north", "desk=south", "desk=west"},
    ]
    assert found[0].share > 0.8
    assert sum(each.amount for each in found) == pytest.approx(evidence.effect.estimate)
