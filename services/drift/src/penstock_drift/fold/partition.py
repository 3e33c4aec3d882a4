"""Folds one partition of `signals` into evidence, tick by tick. Pure.

Observations wait in buckets of event time until every source has said that a bucket is complete;
then each key's are put in order of time and source and shown to its channels. So the evidence of a
tick does not depend on how the sources' records lay between each other, and a fold that was killed
and read on from its snapshot gives the same evidence as one that was not.

The buffer is no part of a snapshot: what waits is read again, from `resume_offset` on, and the
snapshot tells what of that was folded before.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import groupby
from operator import attrgetter

from penstock_drift.fold.keys import Bank, KeyFold, KeySnapshot
from penstock_drift.policy.document import Policy, PolicyError, kept_policy, parse_policy
from penstock_drift.records.evidence import Entry, TickEvidence
from penstock_drift.records.values import Item, Key, Observation, PolicyChange, Tick, Traffic

__all__ = ["Counted", "FoldSnapshot", "PartitionFold", "Progress", "tick_end"]

# Longer than `signals` is kept: an observation so far ahead of its tick has a broken clock, and
# would hold the partition's position back until its time comes.
AHEAD_MS = 7 * 86_400_000
# Entries of one record of `evidence`, 1.4 kB each, or 4.5 kB where all names are as long as can be:
# a broker takes 1 MB by default, and when a platform goes down everything has something to say.
MAX_ENTRIES = 200


@dataclasses.dataclass
class Counted:
    """What became of observations.

    Attributes:
        folded: Shown to their channels.
        late: Came after their tick was closed; passed over.
        ahead: Of a time that cannot be; passed over.
        forced: Ticks that were closed because too much waited.
        evicted: Keys dropped because there were too many.
        silent: Keys dropped because nothing came for them.
        refused_policies: Versions that are no policy.
        refused_values: Values that a channel could not take, such as one of another type, by
            signal and why.
    """

    folded: int = 0
    late: int = 0
    ahead: int = 0
    forced: int = 0
    evicted: int = 0
    silent: int = 0
    refused_policies: int = 0
    refused_values: Counter[tuple[str, str]] = dataclasses.field(default_factory=Counter)


@dataclasses.dataclass(frozen=True, slots=True)
class Progress:
    """How far a fold has come: with the keys' states all that it needs to go on.

    Attributes:
        offset: Records below it are in: folded, or read again because they waited.
        closed_ms: Ticks up to here are folded.
        ticks: By source, up to when it has said everything.
        sources: How many there are.
        told_ms: End of the newest tick that was told to the judge.
        told_armed: Armed signals, as last told.
        late: Late observations that are not told yet.
        policy: The policy in force; None for the default.
        policy_is_news: Whether the judge is not told of it yet.
        traffic: Routes that the judge is not told of yet.
        evicted: Keys with something told that were dropped, which the judge is not told of yet.
    """

    offset: int = 0
    closed_ms: int = 0
    ticks: Mapping[str, int] = dataclasses.field(default_factory=dict)
    sources: int = 0
    told_ms: int = 0
    told_armed: int = 0
    late: int = 0
    policy: PolicyChange | None = None
    policy_is_news: bool = False
    traffic: tuple[Traffic, ...] = ()
    evicted: tuple[Key, ...] = ()


@dataclasses.dataclass(frozen=True)
class FoldSnapshot:
    """What changed since the last snapshot; laid over it, the whole state.

    Attributes:
        progress: How far the fold has come.
        keys: State of the keys that changed.
        dropped: Keys that are no more.
        resume_offset: Where to read on from.
    """

    progress: Progress
    keys: Mapping[Key, KeySnapshot]
    dropped: frozenset[Key]
    resume_offset: int


class PartitionFold:
    """The fold of one partition.

    Args:
        partition: Its number.
        partitions: How many there are.
        bank: Makes the channels.
        progress: Where a former incarnation stood; anew if None.
        keys: The keys' states that belong to it.
    """

    def __init__(
        self,
        partition: int,
        partitions: int,
        bank: Bank,
        progress: Progress | None = None,
        keys: Mapping[Key, KeySnapshot] | None = None,
    ) -> None:
        found = progress or Progress()
        self._counted = Counted()
        self._partition, self._partitions, self._bank = partition, partitions, bank
        self._offset, self._seen_to = found.offset, 0
        self._closed_ms, self._ticks, self._sources = (
            found.closed_ms,
            dict(found.ticks),
            found.sources,
        )
        self._told_ms, self._told_armed, self._late = found.told_ms, found.told_armed, found.late
        self._change = found.policy
        self._policy = kept_policy(found.policy.document if found.policy else None)
        self._policy_is_news = found.policy_is_news
        self._traffic, self._evicted = found.traffic, found.evicted
        self._buckets: dict[int, list[tuple[int, Observation]]] = {}
        self._buffered = 0
        # In order of their last tick and their name, so that the first is the longest unused.
        self._keys: dict[Key, KeyFold] = {
            key: KeyFold.restored(state, bank, self._policy)
            for key, state in sorted(
                (keys or {}).items(), key=lambda item: (item[1].last_ms, item[0])
            )
        }
        self._armed = sum(each.armed for each in self._keys.values())
        self._dirty: set[Key] = set()
        self._dropped: set[Key] = set()

    @property
    def keys(self) -> int:
        """How many keys there are."""
        return len(self._keys)

    @property
    def armed(self) -> int:
        """How many signals have a baseline."""
        return self._armed

    @property
    def buffered(self) -> int:
        """How many observations wait for their tick to close."""
        return self._buffered

    @property
    def closed_ms(self) -> int:
        """Up to when everything is folded."""
        return self._closed_ms

    def take_counted(self) -> Counted:
        """What became of observations since the last call."""
        found, self._counted = self._counted, Counted()
        return found

    def apply(self, record: Item, offset: int) -> list[TickEvidence]:
        """Takes the record at an offset; offsets rise, and one that was seen does nothing.

        Returns:
            The evidence of the ticks that it closed, oldest first. After a restart some come
            again, the same as before.
        """
        if offset < self._seen_to:
            return []
        self._seen_to = offset + 1
        if offset < self._offset:
            # Its effect is in the snapshot, but for what waited then.
            if isinstance(record, Observation) and self._may_wait(record):
                self._wait(record, offset)
            return []
        self._offset = offset + 1
        match record:
            case Observation():
                return self._observe(record, offset)
            case Tick():
                return self._hear(record)
            case PolicyChange():
                self._take_policy(record)
                return []
            case Traffic():
                self._traffic = (*self._traffic, record)
                return []

    def snapshot(self) -> FoldSnapshot:
        """What changed since the last call; what it gives must be written, or the fold dropped."""
        progress = Progress(
            offset=self._offset,
            closed_ms=self._closed_ms,
            ticks=dict(self._ticks),
            sources=self._sources,
            told_ms=self._told_ms,
            told_armed=self._told_armed,
            late=self._late,
            policy=self._change,
            policy_is_news=self._policy_is_news,
            traffic=self._traffic,
            evicted=self._evicted,
        )
        waiting = (offset for bucket in self._buckets.values() for offset, _ in bucket)
        found = FoldSnapshot(
            progress,
            {key: self._keys[key].snapshot() for key in sorted(self._dirty)},
            frozenset(self._dropped),
            # What waited at the last snapshot may not have been read again yet.
            min(min(waiting, default=self._offset), self._seen_to),
        )
        self._dirty, self._dropped = set(), set()
        return found

    def _observe(self, observation: Observation, offset: int) -> list[TickEvidence]:
        if observation.time_ms < self._closed_ms:
            self._counted.late += 1
            self._late += 1
            return []
        if self._is_ahead(observation):
            self._counted.ahead += 1
            return []
        self._wait(observation, offset)
        told: list[TickEvidence] = []
        while self._buffered > self._policy.limits.max_buffered:
            self._counted.forced += 1
            told += self._close_until(min(self._buckets))
        return told

    def _may_wait(self, observation: Observation) -> bool:
        return observation.time_ms >= self._closed_ms and not self._is_ahead(observation)

    def _is_ahead(self, observation: Observation) -> bool:
        return bool(self._closed_ms) and observation.time_ms > self._closed_ms + AHEAD_MS

    def _wait(self, observation: Observation, offset: int) -> None:
        end = tick_end(observation.time_ms, self._policy)
        self._buckets.setdefault(end, []).append((offset, observation))
        self._buffered += 1

    def _hear(self, tick: Tick) -> list[TickEvidence]:
        self._ticks[tick.source] = max(tick.until_ms, self._ticks.get(tick.source, 0))
        self._sources = max(tick.sources, self._sources)
        if len(self._ticks) < self._sources:
            return []
        # Whole ticks only, whatever grid the sources go by: what is closed is closed for good.
        tick_ms = round(self._policy.tick_s * 1000)
        return self._close_until(min(self._ticks.values()) // tick_ms * tick_ms)

    def _take_policy(self, change: PolicyChange) -> None:
        if self._change is not None and change.version <= self._change.version:
            return
        try:
            policy = parse_policy(change.document)
        except PolicyError:
            # Whoever set it was told; what is in force stays in force.
            self._counted.refused_policies += 1
            return
        former, self._policy, self._change = self._policy, policy, change
        self._policy_is_news = True
        self._make_room(policy.limits.max_keys)
        for key, fold in self._keys.items():
            fold.follow(policy)
            self._dirty.add(key)
        self._armed = sum(each.armed for each in self._keys.values())
        if policy.tick_s != former.tick_s:
            waiting = [each for bucket in self._buckets.values() for each in bucket]
            self._buckets, self._buffered = {}, 0
            for offset, observation in sorted(waiting, key=lambda each: each[0]):
                self._wait(observation, offset)

    def _close_until(self, until_ms: int) -> list[TickEvidence]:
        told = []
        while (end := self._next_end(until_ms)) is not None:
            told += self._close(end)
        self._closed_ms = max(self._closed_ms, until_ms)
        if self._closed_ms > self._told_ms:
            # Nothing to say is said too: the judge waits for every partition's word.
            told += self._tell(self._closed_ms, [])
        return told

    def _next_end(self, until_ms: int) -> int | None:
        ends = [end for end in self._buckets if end <= until_ms]
        if self._keys:
            silent = self._silent_from(next(iter(self._keys.values())))
            # A policy may have shortened the patience: what is past is told at the next tick.
            silent = max(silent, tick_end(self._closed_ms, self._policy))
            if silent <= until_ms:
                ends.append(silent)
        return min(ends, default=None)

    def _silent_from(self, fold: KeyFold) -> int:
        return tick_end(fold.last_ms + round(self._policy.limits.key_ttl_s * 1000), self._policy)

    def _close(self, end_ms: int) -> list[TickEvidence]:
        self._closed_ms = max(self._closed_ms, end_ms)
        entries: list[Entry] = []
        waited = [observation for _, observation in self._buckets.pop(end_ms, ())]
        self._buffered -= len(waited)
        self._counted.folded += len(waited)
        for key, observations in _in_order(waited):
            fold = self._touch(key)
            armed = fold.armed
            entries += fold.take(key, observations, end_ms)
            self._armed += fold.armed - armed
            self._counted.refused_values.update(fold.refused)
            fold.refused.clear()
        while self._keys:
            key, oldest = next(iter(self._keys.items()))
            if self._silent_from(oldest) > end_ms:
                break
            self._counted.silent += 1
            self._drop(key)
        news = self._policy_is_news or self._armed != self._told_armed
        if entries or news or self._traffic or self._evicted:
            return self._tell(end_ms, entries)
        return []

    def _touch(self, key: Key) -> KeyFold:
        fold = self._keys.pop(key, None)
        if fold is None:
            self._make_room(self._policy.limits.max_keys - 1)
            fold = KeyFold(self._bank, self._policy)
            self._dropped.discard(key)
        self._keys[key] = fold
        self._dirty.add(key)
        return fold

    def _make_room(self, most: int) -> None:
        while len(self._keys) > most:
            self._counted.evicted += 1
            key, oldest = next(iter(self._keys.items()))
            if oldest.told:
                # Its findings would stand for as long as a silent key is waited for.
                self._evicted = (*self._evicted, key)
            self._drop(key)

    def _drop(self, key: Key) -> None:
        self._armed -= self._keys.pop(key).armed
        self._dirty.discard(key)
        self._dropped.add(key)

    def _tell(self, end_ms: int, entries: list[Entry]) -> list[TickEvidence]:
        parts = [entries[n : n + MAX_ENTRIES] for n in range(0, len(entries), MAX_ENTRIES)] or [[]]
        told = []
        # What does not fit into one record is told as ticks a millisecond apart.
        for until_ms, part in enumerate(parts, end_ms - len(parts) + 1):
            policy = self._change if self._policy_is_news else None
            told.append(
                TickEvidence(
                    partition=self._partition,
                    partitions=self._partitions,
                    until_ms=until_ms,
                    armed=self._armed,
                    entries=tuple(part),
                    policy=policy,
                    late=self._late,
                    traffic=self._traffic,
                    evicted=self._evicted,
                )
            )
            self._late, self._policy_is_news, self._traffic, self._evicted = 0, False, (), ()
        self._told_ms, self._told_armed = end_ms, self._armed
        return told


def tick_end(time_ms: int, policy: Policy) -> int:
    """The end of the tick that an instant lies in, milliseconds since 1970; itself outside it."""
    tick_ms = round(policy.tick_s * 1000)
    return (time_ms // tick_ms + 1) * tick_ms


def _in_order(
    observations: Iterable[Observation],
) -> Iterable[tuple[Key, list[Observation]]]:
    # By key, and within a key by time: the source breaks ties, so that no two are equal.
    ordered = sorted(observations, key=lambda each: (each.key, each.time_ms, each.source))
    for key, group in groupby(ordered, key=attrgetter("key")):
        yield key, list(group)
