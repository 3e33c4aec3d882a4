"""What detectors have to say, on its way from the folds to the judge. Pure.

A channel (one signal of one key) gives a `SignalEvidence`; a fold adds whose it is and gives one
`TickEvidence` per closed tick; the judge knows nothing of the detectors beyond these.
"""

from __future__ import annotations

import dataclasses
from enum import Enum

from penstock_drift.records.values import Key, Kind, PolicyChange, Source, Traffic

__all__ = [
    "Channel",
    "Entry",
    "Exemplar",
    "Histogram",
    "Interval",
    "PartTally",
    "SignalEvidence",
    "TickEvidence",
    "Vote",
]


class Channel(Enum):
    """Which promise stands behind a finding."""

    # E-detectors under e-BH: error over patience at the policy's alpha.
    E_DETECTORS = "e_detectors"
    # River's detectors and others at bootstrapped thresholds: calibrated, not guaranteed.
    CALIBRATED = "calibrated"


@dataclasses.dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and the bounds around it, in its own unit."""

    estimate: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True, slots=True)
class Histogram:
    """How often values fell into bins, before and since the onset.

    Attributes:
        edges: Upper edges of all bins but the last; empty for categories.
        categories: Names of the bins of a categorical signal.
        before: Counts by bin.
        after: The same bins.
    """

    edges: tuple[float, ...]
    categories: tuple[str, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Vote:
    """A detector's say.

    Attributes:
        detector: The detector with its parameters.
        channel: The promise behind it.
        log_evidence: Natural logarithm of an e-detector's value; 0 of a calibrated one.
        fired: Whether a calibrated one has fired since the onset.
    """

    detector: str
    channel: Channel
    log_evidence: float
    fired: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Exemplar:
    """A response that shows what is meant; its value is a number, or the category's bin."""

    request_id: str
    source: Source
    time_ms: int
    value: float


@dataclasses.dataclass(frozen=True, slots=True)
class PartTally:
    """A segment's part of a signal's values over all traffic.

    Attributes:
        segment: `label=value`; `label=` for what lacks the label.
        before: How many values of the baseline.
        total_before: Their sum, in the signal's unit.
        after: How many values since the onset.
        total_after: Their sum.
    """

    segment: str
    before: int
    total_before: float
    after: int
    total_after: float


@dataclasses.dataclass(frozen=True, slots=True)
class SignalEvidence:
    """The evidence on one signal of one key.

    Attributes:
        signal: The signal's name.
        kind: What it means when it changes.
        log_evidence: Natural logarithm of the average of the e-detectors' values.
        votes: Of each detector.
        onset_ms: When the change began, milliseconds since 1970; with its bounds.
        onset_earliest_ms: Its lower bound.
        onset_latest_ms: Its upper bound.
        before: The signal's mean (a rate, of a binary one) in the baseline, in its unit.
        after: Its mean since the onset.
        effect: After less before, in standard deviations of the baseline; of a rate, in its unit.
        observations_after: Values since the onset.
        observations_before: Values in the baseline.
        histogram: Before and since the onset.
        exemplars_before: Responses from before.
        exemplars_after: Responses since.
        baseline: Version of the baseline; rises when the channel rebases.
        route_version_before: The route that answered before the onset; 0 where not known.
        route_version_after: The newest route that answered since.
        adapter_before: The adapter of the route before, empty for the base model alone; None where
            not known.
        adapter_after: That of the newest route.
        parts: Over all traffic, how the values divide over segments; of signals with a mean.
        shift: How far the mean moved, in deviations, where `effect` is that of a change of spread;
            None where `effect` says it.
    """

    signal: str
    kind: Kind
    log_evidence: float
    votes: tuple[Vote, ...]
    onset_ms: int
    onset_earliest_ms: int
    onset_latest_ms: int
    before: Interval
    after: Interval
    effect: Interval
    observations_after: int
    observations_before: int
    histogram: Histogram
    exemplars_before: tuple[Exemplar, ...]
    exemplars_after: tuple[Exemplar, ...]
    baseline: int
    route_version_before: int
    route_version_after: int
    adapter_before: str | None = None
    adapter_after: str | None = None
    parts: tuple[PartTally, ...] = ()
    shift: Interval | None = None

    @property
    def fired(self) -> int:
        """How many calibrated detectors have fired since the onset."""
        return sum(vote.fired for vote in self.votes if vote.channel is Channel.CALIBRATED)


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """The evidence on one signal at the end of a tick in which it had values.

    Attributes:
        key: Whose signal it is.
        evidence: What its detectors say.
        in_tick: Values of the tick.
    """

    key: Key
    evidence: SignalEvidence
    in_tick: int


@dataclasses.dataclass(frozen=True, slots=True)
class TickEvidence:
    """What one partition's detectors say at the end of a tick.

    Attributes:
        partition: The partition of `signals`.
        partitions: How many there are.
        until_ms: The tick's end, milliseconds since 1970. It rises; ticks in between had nothing
            to say.
        armed: Signals with a baseline.
        entries: Signals with values in the tick whose evidence is above the floor, or was when
            last told.
        policy: Set where the policy changed since the last one.
        late: Observations that came after their tick was closed, since the last one.
        traffic: Routes that were heard of since the last one.
        evicted: Keys with something told that were dropped since the last one, because there were
            too many; what is told of them in this tick does not count.
    """

    partition: int
    partitions: int
    until_ms: int
    armed: int
    entries: tuple[Entry, ...] = ()
    policy: PolicyChange | None = None
    late: int = 0
    traffic: tuple[Traffic, ...] = ()
    evicted: tuple[Key, ...] = ()
