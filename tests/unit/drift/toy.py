"""Small worlds for the fold and the judge: channels that are quick, sources that tick."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from penstock_drift.channels.parts import Parts
from penstock_drift.fold.keys import Bank
from penstock_drift.fold.partition import PartitionFold
from penstock_drift.judge.judge import Judge, Verdicts
from penstock_drift.policy.document import Policy
from penstock_drift.records.evidence import (
    Channel,
    Exemplar,
    Histogram,
    Interval,
    SignalEvidence,
    TickEvidence,
    Vote,
)
from penstock_drift.records.values import (
    Item,
    Key,
    Kind,
    Observation,
    PolicyChange,
    SignalType,
    Source,
    Tick,
    Value,
)
from penstock_drift.signals.declared import Declaration
from penstock_drift.worker.snapshots import (
    StateRecords,
    fold_records,
    fold_state,
    judge_records,
    judge_state,
    laid_over,
)

DECLARED = {
    "refusal": Declaration("refusal", SignalType.BINARY, Kind.QUALITY, higher_is_worse=True),
    "latency": Declaration("latency", SignalType.NUMBER, Kind.OPERATIONAL, higher_is_worse=True),
    "length": Declaration("length", SignalType.NUMBER, Kind.INPUT),
}
BASELINE = 8


class ToyChannel:
    """CUSUM of the values over a baseline of eight; rebases after fifty at its cap."""

    def __init__(self, signal: str, state: Mapping[str, Any] | None = None) -> None:
        self._signal = signal
        self._s: dict[str, Any] = {
            "n": 0,
            "mean": 0.0,
            "sum": 0.0,
            "baseline": 0,
            "after": 0,
            "total": 0.0,
            "onset": 0,
            "capped": 0,
            "votes": 0,
            "routes": [0, 0],
            "parts": [],
            **(state or {}),
        }
        self._parts = Parts.from_state(self._s["parts"])

    @property
    def warming(self) -> bool:
        return self._s["n"] < BASELINE

    @property
    def log_evidence(self) -> float:
        return 0.0 if self.warming else float(self._s["sum"])

    @property
    def fired(self) -> int:
        return int(self._s["votes"])

    def update(
        self, value: Value, exemplar: Exemplar, route_version: int, segments: Sequence[str]
    ) -> None:
        assert isinstance(value, float)
        s = self._s
        if self.warming:
            s["n"] += 1
            s["mean"] += (value - s["mean"]) / s["n"]
            s["routes"] = [route_version, 0]
            self._parts.learn(segments, value)
            return
        # Order matters, so that a wrong order is seen.
        s["sum"] = min(max(0.0, s["sum"] * 0.999 + abs(value - s["mean"]) - 0.5), 20.0)
        if s["sum"] == 0.0:
            s["after"], s["total"], s["onset"] = 0, 0.0, exemplar.time_ms
            self._parts.begin()
        self._parts.test(segments, value)
        s["after"] += 1
        s["total"] += value
        s["routes"][1] = route_version
        s["capped"] = s["capped"] + 1 if s["sum"] == 20.0 else 0
        if s["capped"] >= 50:
            self._s = {**ToyChannel(self._signal)._s, "baseline": s["baseline"] + 1}
            self._parts = Parts()

    def evidence(self) -> SignalEvidence:
        s = self._s
        after = s["total"] / s["after"] if s["after"] else s["mean"]
        return SignalEvidence(
            signal=self._signal,
            kind=DECLARED[self._signal].kind,
            log_evidence=self.log_evidence,
            votes=(Vote("toy", Channel.E_DETECTORS, self.log_evidence, False),),
            onset_ms=s["onset"],
            onset_earliest_ms=s["onset"],
            onset_latest_ms=s["onset"],
            before=Interval(s["mean"], s["mean"], s["mean"]),
            after=Interval(after, after, after),
            effect=Interval(*[after - s["mean"]] * 3),
            observations_after=s["after"],
            observations_before=s["n"],
            histogram=Histogram((), (), (), ()),
            exemplars_before=(),
            exemplars_after=(),
            baseline=s["baseline"],
            route_version_before=s["routes"][0],
            route_version_after=s["routes"][1],
            parts=self._parts.tallies(),
        )

    def state(self) -> Mapping[str, Any]:
        return {**self._s, "parts": self._parts.state()}


class ToyBank:
    def channel(self, signal: str, policy: Policy) -> ToyChannel | None:
        known = signal in DECLARED and policy.for_signal(signal).enabled
        return ToyChannel(signal) if known else None

    def restored(self, signal: str, policy: Policy, state: Mapping[str, Any]) -> ToyChannel | None:
        return ToyChannel(signal, state) if self.channel(signal, policy) else None


BANK: Bank = ToyBank()


WHOLE = Key("m", "v")


def observation(
    offset: int,
    time_ms: int,
    value: float,
    *,
    key: Key = WHOLE,
    signal: str = "refusal",
    partition: int = 0,
    route: int = 1,
    adapter: str | None = None,
    segments: tuple[str, ...] = (),
) -> Observation:
    source = Source("responses", partition, offset)
    name = f"r{partition}-{offset}"
    return Observation(key, name, time_ms, source, {signal: value}, route, adapter, segments)


POLICY = """
tick_s: 1
lateness_s: 1
hysteresis_ticks: 2
cooldown_ticks: 5
segments: {task: 4}
limits: {key_ttl_s: 60, max_buffered: 1000}
rebase_after: {quality: 100}
"""

KEYS = [
    Key("m", "v"),
    Key("m", "v", "task=a"),
    Key("m", "v", "task=b"),
    Key("m", "w"),
]


@dataclasses.dataclass(frozen=True)
class World:
    """What each source writes to each partition of `signals`, in the source's own order."""

    partitions: int
    streams: Sequence[Sequence[Sequence[Item]]]  # by source, by partition


def make_world(
    seed: int,
    *,
    sources: int = 3,
    partitions: int = 2,
    seconds: int = 90,
    shift: tuple[int, int] = (30, 45),
    gap: tuple[int, int] = (60, 65),
) -> World:
    """Some keys drift between the seconds of `shift`; nobody writes in those of `gap`."""
    draw = random.Random(seed)
    streams = []
    for source in range(sources):
        by_partition: list[list[Item]] = [
            [PolicyChange(1, POLICY)] if source == 0 else [] for _ in range(partitions)
        ]
        offset, told = 0, 0
        for second in range(1, seconds):
            for _ in range(0 if gap[0] <= second < gap[1] else draw.randrange(1, 4)):
                time_ms = 1_000_000 + second * 1000 + draw.randrange(-900, 900)
                for number, key in enumerate(KEYS):
                    shifted = shift[0] <= second < shift[1] and number != 3
                    value = draw.gauss(0, 0.2) + (4.0 if shifted else 0.0)
                    by_partition[number % partitions].append(
                        observation(
                            offset,
                            time_ms,
                            value,
                            key=key,
                            signal=("refusal", "latency")[offset % 2],
                            partition=source,
                            route=1 + (second >= shift[0]),
                            segments=() if key.segment else (f"task={'ab'[offset // 2 % 2]}",),
                            adapter="" if second < shift[0] else f"a-{second >= gap[0]}",
                        )
                    )
                offset += 1
            until = 1_000_000 + (second - 1) * 1000
            if until > told:
                told = until
                for each in by_partition:
                    each.append(Tick(f"responses/{source}", until, sources))
        for each in by_partition:
            each.append(Tick(f"responses/{source}", 1_000_000 + (seconds + 100) * 1000, sources))
        streams.append(by_partition)
    return World(partitions, streams)


def interleaved(world: World, draw: random.Random) -> list[list[Item]]:
    """One log per partition: the sources' records between each other, each in its own order.

    The policy comes first, as the extractor writes it before anything else.
    """
    logs: list[list[Item]] = []
    for number in range(world.partitions):
        queues = [list(reversed(stream[number])) for stream in world.streams]
        log: list[Item] = [queues[0].pop()]
        while queues:
            queue = draw.choice(queues)
            run = draw.randrange(1, 12)
            log += reversed(queue[-run:])
            del queue[-run:]
            queues = [each for each in queues if each]
        logs.append(log)
    return logs


def folded(log: Sequence[Item], partition: int, partitions: int) -> list[TickEvidence]:
    """What a fold that nobody disturbs says of a log."""
    fold = PartitionFold(partition, partitions, BANK)
    return [told for offset, record in enumerate(log) for told in fold.apply(record, offset)]


def judged(evidence: Iterable[TickEvidence]) -> Verdicts:
    """What a judge that nobody disturbs says."""
    judge, verdicts = Judge(DECLARED), Verdicts()
    for offset, tick in enumerate(evidence):
        found = judge.take(tick, offset)
        verdicts.events += found.events
        verdicts.news += found.news
    return verdicts


def merged(words: Sequence[Sequence[TickEvidence]], draw: random.Random) -> list[TickEvidence]:
    """The partitions' words between each other, each in its own order."""
    queues = [list(reversed(each)) for each in words if each]
    log: list[TickEvidence] = []
    while queues:
        queue = draw.choice(queues)
        log.append(queue.pop())
        queues = [each for each in queues if each]
    return log


class FoldWorker:
    """A worker on one partition that can be killed: what it wrote stays, its memory does not."""

    def __init__(self, log: Sequence[Item], partition: int, partitions: int) -> None:
        self._log, self._where = log, (partition, partitions)
        self.saved: StateRecords = []
        self.committed = 0
        self.kill()

    def kill(self) -> None:
        progress, keys = fold_state(laid_over(self.saved))
        self._fold = PartitionFold(*self._where, BANK, progress, keys)
        self._read = self.committed

    @property
    def done(self) -> bool:
        return self._read >= len(self._log)

    def read(self, records: int) -> list[TickEvidence]:
        told = []
        for record in self._log[self._read : self._read + records]:
            told += self._fold.apply(record, self._read)
            self._read += 1
        return told

    def save(self, *, commit: bool) -> None:
        """The state goes out before the position, and the kill may come between the two."""
        snapshot = self._fold.snapshot()
        self.saved += fold_records(snapshot)
        if commit:
            self.committed = snapshot.resume_offset


class JudgeWorker:
    """The judge's worker: verdicts and state in one transaction, the position after it."""

    def __init__(self, evidence: list[TickEvidence]) -> None:
        self._evidence = evidence
        self.saved: StateRecords = []
        self.verdicts = Verdicts()
        self.committed = 0
        self.kill()

    def kill(self) -> None:
        progress, cases, incidents = judge_state(laid_over(self.saved))
        self._judge = Judge(DECLARED, progress, cases, incidents)
        self._read = self.committed

    @property
    def done(self) -> bool:
        return self._read >= len(self._evidence)

    def read(self, records: int, *, die: bool, commit: bool) -> None:
        found = Verdicts()
        for tick in self._evidence[self._read : self._read + records]:
            each = self._judge.take(tick, self._read)
            found.events += each.events
            found.news += each.news
            self._read += 1
        if die:
            return
        snapshot = self._judge.snapshot()
        self.saved += judge_records(snapshot)
        self.verdicts.events += found.events
        self.verdicts.news += found.news
        if commit:
            self.committed = snapshot.resume_offset


def judged_though_killed(log: Sequence[Item], draw: random.Random) -> Verdicts:
    """What comes of a log when its fold and its judge are killed at moments that are drawn."""
    fold, evidence = FoldWorker(log, 0, 1), []
    judge = JudgeWorker(evidence)
    while not (fold.done and judge.done):
        die = draw.random() < 0.2
        if draw.random() < 0.5:
            told = fold.read(draw.randrange(1, 60))
            evidence += told if not die else told[: draw.randrange(len(told) + 1)]
            if die:
                fold.kill()
            else:
                fold.save(commit=draw.random() < 0.7)
        else:
            judge.read(draw.randrange(1, 20), die=die, commit=draw.random() < 0.7)
            if die:
                judge.kill()
    return judge.verdicts
