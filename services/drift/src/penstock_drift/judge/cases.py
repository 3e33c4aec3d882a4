"""What the judge keeps between ticks. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from penstock_drift.findings.events import Watch
from penstock_drift.findings.incidents import IncidentChanges
from penstock_drift.findings.states import Standing
from penstock_drift.records.evidence import Channel, Entry
from penstock_drift.records.values import PolicyChange, Traffic

__all__ = ["Case", "JudgeProgress", "JudgeSnapshot"]


@dataclasses.dataclass(frozen=True, slots=True)
class Case:
    """What the judge keeps of a signal that is, or lately was, above the floor.

    Attributes:
        entry: The newest evidence.
        standing: Where it stands.
        channel: The promise behind the finding; None without one.
        incident_id: The incident of the finding; empty without one.
    """

    entry: Entry
    standing: Standing = dataclasses.field(default_factory=Standing)
    channel: Channel | None = None
    incident_id: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class JudgeProgress:
    """How far the judge has come.

    Attributes:
        judged_ms: Ticks up to here are judged.
        partitions: How many partitions `signals` has.
        armed: By partition, signals with a baseline.
        policy: The policy in force; None for the default.
        asked: By `model/variant`, when a retraining was last asked for.
        traffic: By model, who answers for it; models of which nothing was heard are not there.
    """

    judged_ms: int = 0
    partitions: int = 0
    armed: Mapping[int, int] = dataclasses.field(default_factory=dict)
    policy: PolicyChange | None = None
    asked: Mapping[str, int] = dataclasses.field(default_factory=dict)
    traffic: Mapping[str, Traffic] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class JudgeSnapshot:
    """What changed since the last snapshot; laid over it, the whole state.

    Attributes:
        progress: How far the judge has come.
        cases: Cases that changed.
        closed: Cases that are no more.
        incidents: What changed of the incidents.
        resume_offset: Where to read `evidence` on from.
    """

    progress: JudgeProgress
    cases: Mapping[Watch, Case]
    closed: frozenset[Watch]
    incidents: IncidentChanges
    resume_offset: int
