"""One partition's fold: what closes a tick, what is passed over, and what bounds its memory."""

from __future__ import annotations

import dataclasses

from penstock_drift.channels.channel import SignalChannel, Watch
from penstock_drift.channels.parts import MAX_PARTS
from penstock_drift.channels.tally import BINS, EXAMPLES
from penstock_drift.detectors.calibrated import DIALS
from penstock_drift.fold.partition import AHEAD_MS, MAX_ENTRIES, FoldSnapshot, PartitionFold
from penstock_drift.records.evidence import (
    Channel,
    Entry,
    Exemplar,
    Histogram,
    Interval,
    PartTally,
    TickEvidence,
    Vote,
)
from penstock_drift.records.evidence_wire import tick_to_wire
from penstock_drift.records.values import (
    Item,
    Key,
    Observation,
    PolicyChange,
    Source,
    Tick,
    Traffic,
)
from penstock_drift.signals.catalogue import CATALOGUE
from penstock_drift.signals.segments import MAX_CHARS
from penstock_drift.worker.snapshots import fold_records, fold_state, laid_over
from tests.unit.drift.toy import BANK, POLICY, observation


def fold_of(*records: Item) -> tuple[PartitionFold, list[TickEvidence]]:
    fold, told = PartitionFold(0, 1, BANK), []
    for offset, record in enumerate([PolicyChange(1, POLICY), *records]):
        told += fold.apply(record, offset)
    return fold, told


def tick(until_ms: int, source: str = "responses/0", sources: int = 1) -> Tick:
    return Tick(source, until_ms, sources)


def test_a_tick_closes_when_every_source_has_said_so() -> None:
    fold, told = fold_of(
        observation(0, 500, 1.0),
        tick(1000, "responses/0", 2),
        tick(900, "feedback/0", 2),
    )
    assert (told, fold.buffered, fold.closed_ms) == ([], 1, 0)
    told = fold.apply(tick(1000, "feedback/0", 2), 4)
    assert [each.until_ms for each in told] == [1000]
    assert (fold.buffered, fold.closed_ms, fold.take_counted().folded) == (0, 1000, 1)


def test_ticks_without_news_are_told_as_one() -> None:
    _, told = fold_of(tick(1000), tick(9000), tick(9000), tick(8000))
    assert [(each.until_ms, each.entries) for each in told] == [(1000, ()), (9000, ())]


def test_the_policy_is_told_with_the_next_tick_once() -> None:
    _, told = fold_of(tick(1000), tick(2000))
    assert [each.policy for each in told] == [PolicyChange(1, POLICY), None]


def test_a_route_is_told_with_the_next_tick_once_whoever_is_killed() -> None:
    routes = [Traffic("m", 3, ("v",)), Traffic("m", 4, ("v", "w"))]
    fold, told = fold_of(tick(1000), *routes)
    assert [each.traffic for each in told] == [()]
    again = PartitionFold(0, 1, BANK, *fold_state(laid_over(fold_records(fold.snapshot()))))
    for each in (fold, again):
        said = [*each.apply(tick(2000), 4), *each.apply(tick(3000), 5)]
        assert [told.traffic for told in said] == [tuple(routes), ()]


def test_what_is_late_or_far_ahead_is_counted_and_passed_over() -> None:
    fold, told = fold_of(
        tick(5000),
        observation(0, 4999, 1.0),
        observation(1, 5000, 1.0),
        observation(2, 5001 + AHEAD_MS, 1.0),
        tick(6000),
    )
    counted = fold.take_counted()
    assert (counted.late, counted.ahead, counted.folded) == (1, 1, 1)
    assert [each.late for each in told] == [0, 1]


def test_what_is_far_ahead_waits_for_nobody_after_a_restart_either() -> None:
    log = [
        tick(5000),
        observation(1, 5500, 1.0),
        observation(2, 5001 + AHEAD_MS, 1.0),
        observation(3, 5600, 1.0),
    ]
    fold, _ = fold_of(*log)
    snapshot = fold.snapshot()
    again = PartitionFold(0, 1, BANK, *fold_state(laid_over(fold_records(snapshot))))
    for offset, record in enumerate([PolicyChange(1, POLICY), *log]):
        if offset >= snapshot.resume_offset:
            again.apply(record, offset)
    assert (fold.buffered, again.buffered) == (2, 2)
    for each in (fold, again):
        each.apply(tick(6000), 5)
        # Nothing holds the position back.
        assert (each.buffered, each.snapshot().resume_offset) == (0, 6)


def test_too_much_waiting_closes_the_oldest_tick() -> None:
    records = [observation(n, 500 + n * 10, 1.0) for n in range(1001)]
    fold, told = fold_of(*records)
    assert fold.take_counted().forced == 1
    assert fold.closed_ms == 1000
    assert fold.buffered == 1001 - 50
    assert [each.until_ms for each in told] == [1000]


def test_keys_beyond_the_bound_go_longest_unused_first() -> None:
    policy = PolicyChange(2, POLICY.replace("{key_ttl_s: 60", "{max_keys: 2, key_ttl_s: 60"))
    fold, _ = fold_of(
        policy,
        *(observation(n, 100 + 1000 * n, 1.0, key=Key("m", f"v{n}")) for n in range(2)),
        observation(2, 2100, 1.0, key=Key("m", "v0")),
        observation(3, 3100, 1.0, key=Key("m", "v2")),
        tick(4000),
    )
    snapshot = fold.snapshot()
    assert {key.variant for key in snapshot.keys} == {"v0", "v2"}
    assert {key.variant for key in snapshot.dropped} == {"v1"}
    assert fold.take_counted().evicted == 1


def test_a_policy_that_wants_fewer_keys_drops_the_longest_unused_at_once() -> None:
    keys = (Key("m", f"v{n}") for n in range(5))
    fold, _ = fold_of(
        *(observation(n, 100 + 1000 * n, 1.0, key=key) for n, key in enumerate(keys)), tick(5000)
    )
    fewer = POLICY.replace("{key_ttl_s: 60", "{max_keys: 2, key_ttl_s: 60")
    fold.apply(PolicyChange(2, fewer), 100)
    snapshot = fold.snapshot()
    assert {key.variant for key in snapshot.keys} == {"v3", "v4"}
    assert {key.variant for key in snapshot.dropped} == {"v0", "v1", "v2"}
    assert (fold.keys, fold.take_counted().evicted) == (2, 3)


def test_a_key_without_traffic_is_dropped_at_its_tick_however_time_passes() -> None:
    records = [observation(n, 100, 1.0) for n in range(20)]
    _, at_once = fold_of(*records, tick(1000), tick(200_000))
    _, slowly = fold_of(*records, *(tick(ms) for ms in range(1000, 201_000, 1000)))
    # Armed at the first tick, dropped sixty seconds later.
    assert [(each.until_ms, each.armed) for each in at_once] == [
        (1000, 1),
        (62_000, 0),
        (200_000, 0),
    ]
    assert [each.until_ms for each in slowly if each.armed] == list(range(1000, 62_000, 1000))


def test_a_value_that_a_channel_cannot_take_stops_nobody() -> None:
    bad = Observation(Key("m", "v"), "r", 100, observation(9, 0, 0.0).source, {"refusal": "?"}, 1)
    fold, told = fold_of(bad, observation(1, 200, 1.0), tick(1000))
    ((signal, why),) = fold.take_counted().refused_values
    assert signal == "refusal"
    # Where it happened, and nothing of the value.
    assert why.startswith("AssertionError in update, line ")
    assert not fold.take_counted().refused_values
    assert told[0].until_ms == 1000


def test_a_policy_that_is_none_leaves_the_old_one() -> None:
    fold, _ = fold_of(PolicyChange(2, "tick_s: no"), tick(1000))
    assert fold.take_counted().refused_policies == 1
    assert fold.snapshot().progress.policy == PolicyChange(1, POLICY)


def test_a_baseline_chosen_otherwise_begins_anew_and_others_stay() -> None:
    records = [
        observation(n, 100, 1.0, signal=s) for n, s in enumerate(["refusal", "latency"] * 10)
    ]
    fold, _ = fold_of(*records, tick(1000))
    assert fold.armed == 2
    fold.apply(PolicyChange(2, POLICY + "signals: {refusal: {enabled: false}}"), 99)
    assert fold.armed == 1


def test_another_tick_length_keeps_what_waits() -> None:
    fold, _ = fold_of(observation(0, 1500, 1.0), observation(1, 3500, 1.0))
    fold.apply(PolicyChange(2, POLICY.replace("tick_s: 1", "tick_s: 3")), 3)
    told = fold.apply(tick(3500), 4)
    assert [each.until_ms for each in told] == [3000]
    assert fold.buffered == 1
    assert [each.until_ms for each in fold.apply(tick(6000), 5)] == [6000]


def test_a_snapshot_goes_through_its_records_unchanged() -> None:
    records = [observation(n, 100 + 37 * n, n / 7) for n in range(60)]
    fold, _ = fold_of(*records, tick(2000))
    snapshot: FoldSnapshot = fold.snapshot()
    progress, keys = fold_state(laid_over(fold_records(snapshot)))
    assert progress == snapshot.progress
    assert keys == snapshot.keys
    # What waits is read again from the first of it on: 1 policy, 52 values before 2,000 ms.
    assert snapshot.resume_offset == 53
    assert fold_state({}) == (None, {})


def test_a_snapshot_before_all_that_waited_is_read_again_lets_none_of_it_go() -> None:
    records = [tick(1000), observation(0, 1500, 1.0), tick(1200), observation(1, 1600, 1.0)]
    first, _ = fold_of(*records)
    kept = first.snapshot()
    assert (kept.resume_offset, kept.progress.offset) == (2, 5)
    state = laid_over(fold_records(kept))
    again = PartitionFold(0, 1, BANK, *fold_state(state))
    again.apply(records[0], 1)
    assert again.snapshot().resume_offset == 2
    again.apply(records[1], 2)
    again.apply(records[2], 3)
    assert again.snapshot().resume_offset == 2
    again.apply(records[3], 4)
    assert again.buffered == 2


def test_what_does_not_fit_into_one_record_is_told_a_millisecond_apart() -> None:
    keys = [Key("m", f"v{number:03}") for number in range(900)]
    fold, _ = fold_of(
        PolicyChange(2, POLICY.replace("max_buffered: 1000", "max_buffered: 10_000")),
        *(observation(n, 100, 1.0, key=key) for key in keys for n in range(8)),
    )
    fold.apply(tick(1000), 8000)
    for number, key in enumerate(keys):
        fold.apply(observation(9, 1100, 40.0, key=key), 9000 + number)
    told = fold.apply(tick(2000), 10_000)
    assert [(each.until_ms, len(each.entries)) for each in told] == [
        (1996, 200),
        (1997, 200),
        (1998, 200),
        (1999, 200),
        (2000, 100),
    ]


def test_a_record_of_evidence_fits_however_long_the_names_are() -> None:
    name, interval = "n" * 200, Interval(0.1, 0.2, 0.3)
    exemplars = (Exemplar("r" * 40, Source("responses", 9, 2**40), 2**40, 0.1),) * EXAMPLES
    segment = "department=" + "\N{CJK UNIFIED IDEOGRAPH-6C49}" * MAX_CHARS
    mean_and_spread = Vote("gaussian_sr(spread)", Channel.E_DETECTORS, 0.1, False)
    watch = Watch(detectors=tuple(DIALS))
    channel = SignalChannel(CATALOGUE["minimum_log_probability"], watch)
    evidence = dataclasses.replace(
        channel.evidence(),
        votes=(*channel.evidence().votes, *(mean_and_spread,) * 2),
        onset_ms=2**40,
        onset_earliest_ms=2**40,
        onset_latest_ms=2**40,
        before=interval,
        after=interval,
        effect=interval,
        shift=interval,
        histogram=Histogram((0.1,) * (BINS - 1), (), (2**20,) * BINS, (2**20,) * BINS),
        exemplars_before=exemplars,
        exemplars_after=exemplars,
        adapter_before=name,
        adapter_after=name,
        parts=(PartTally(segment, 2**20, 0.1, 2**20, 0.1),) * MAX_PARTS,
    )
    entries = (Entry(Key(name, name, segment), evidence, 2**20),) * MAX_ENTRIES
    record = tick_to_wire(TickEvidence(0, 64, 2**40, 2**20, entries))
    assert len(record.SerializeToString()) < 1_000_000
