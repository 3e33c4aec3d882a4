"""What the judge finds: the events for machines. Pure."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import NamedTuple

from penstock_drift.findings.states import State
from penstock_drift.records.evidence import Channel, Entry, Interval
from penstock_drift.records.values import Key, Kind, SignalType, Source
from penstock_drift.signals.declared import Declaration

__all__ = ["Event", "Watch", "event_of", "is_worse", "unit_of_effect"]

_IN_DEVIATIONS = (SignalType.NUMBER, SignalType.COUNTS, SignalType.VECTOR)


class Watch(NamedTuple):
    """What is watched: one signal of one key."""

    key: Key
    signal: str


@dataclasses.dataclass(frozen=True, slots=True)
class Event:
    """A signal came into another state: a finding, or its end.

    Attributes:
        event_id: Derived from what is watched, the baseline, the state and the tick.
        watch: What is watched.
        kind: What it means.
        detector: The one with the strongest say.
        mean_before: Mean of the baseline, in the signal's unit.
        mean_after: Mean since the onset.
        observations: Values since the onset.
        detected_ms: The tick's end.
        source: The newest record that shows it; None where none does.
        state: The state.
        previous: The state before.
        channel: The promise behind it.
        log_evidence: Natural logarithm of the e-detectors' average.
        onset_ms: When the change began.
        effect: How large it is.
        incident_id: The incident it belongs to.
        policy_version: The policy in force; 0 for the default.
        action: What the policy asks for; empty for nothing.
    """

    event_id: str
    watch: Watch
    kind: Kind
    detector: str
    mean_before: float
    mean_after: float
    observations: int
    detected_ms: int
    source: Source | None
    state: State
    previous: State
    channel: Channel
    log_evidence: float
    onset_ms: int
    effect: Interval
    incident_id: str = ""
    policy_version: int = 0
    action: str = ""


def event_of(
    entry: Entry, state: State, previous: State, channel: Channel, detected_ms: int
) -> Event:
    """The event of a state that a signal came into."""
    evidence = entry.evidence
    watch = Watch(entry.key, evidence.signal)
    newest = max(evidence.exemplars_after, key=lambda each: each.time_ms, default=None)
    return Event(
        event_id=_digest(*watch.key, watch.signal, evidence.baseline, state.value, detected_ms),
        watch=watch,
        kind=evidence.kind,
        detector=_strongest(entry, channel),
        mean_before=evidence.before.estimate,
        mean_after=evidence.after.estimate,
        observations=evidence.observations_after,
        detected_ms=detected_ms,
        source=newest.source if newest else None,
        state=state,
        previous=previous,
        channel=channel,
        log_evidence=evidence.log_evidence,
        onset_ms=evidence.onset_ms,
        effect=evidence.effect,
    )


def is_worse(entry: Entry, declarations: Mapping[str, Declaration]) -> bool | None:
    """Whether the mean moved for the worse.

    None where the signal has no better, or where chance may have moved the mean either way: a
    wider spread alone is neither.
    """
    declared = declarations.get(entry.evidence.signal)
    if declared is None or declared.higher_is_worse is None:
        return None
    moved = entry.evidence.shift or entry.evidence.effect
    if moved.low <= 0 <= moved.high:
        return None
    return (moved.estimate > 0) is declared.higher_is_worse


def unit_of_effect(declared: Declaration | None) -> str:
    """`sd` where effects are in standard deviations of the baseline; empty in the signal's own."""
    return "sd" if declared is None or declared.type in _IN_DEVIATIONS else ""


def _strongest(entry: Entry, channel: Channel) -> str:
    votes = [vote for vote in entry.evidence.votes if vote.channel is channel]
    if channel is Channel.CALIBRATED:
        return " + ".join(vote.detector for vote in votes if vote.fired)
    return max(votes, key=lambda vote: vote.log_evidence).detector if votes else ""


def _digest(*parts: object) -> str:
    # Length before each part: ("a", "bc") and ("ab", "c") must not meet.
    text = "".join(f"{len(str(part))}:{part}" for part in parts)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
