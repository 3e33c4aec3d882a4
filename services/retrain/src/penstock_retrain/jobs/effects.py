"""What a job's change changes besides the job, in the same transaction. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from penstock_retrain.jobs.stages import Candidate, RouteChange, RouteChangeKind
from penstock_retrain.jobs.states import (
    FINAL,
    Event,
    Facts,
    Impossible,
    Job,
    JobState,
    Trigger,
)
from penstock_retrain.registry.versions import Made, VersionStatus

__all__ = [
    "AliasEffect",
    "ClearChallenger",
    "CreateVersion",
    "Effect",
    "Register",
    "Reroute",
    "Retire",
    "SetChallenger",
    "SetChampion",
    "UndoChampion",
    "candidate_of",
    "effects",
]

_KINDS = ("adapter", "full")
_REASONS = {
    JobState.REJECTED: VersionStatus.REJECTED,
    JobState.ROLLED_BACK: VersionStatus.ROLLED_BACK,
    JobState.FAILED: VersionStatus.ABANDONED,
    JobState.CANCELLED: VersionStatus.ABANDONED,
}


@dataclasses.dataclass(frozen=True)
class CreateVersion:
    """The training has made a version."""

    made: Made


@dataclasses.dataclass(frozen=True)
class Register:
    """The version's files are where engines find them."""

    digest: str
    card: str


@dataclasses.dataclass(frozen=True)
class SetChallenger:
    """The version is the challenger."""


@dataclasses.dataclass(frozen=True)
class ClearChallenger:
    """The version is no challenger any more."""


@dataclasses.dataclass(frozen=True)
class SetChampion:
    """The version is the champion."""


@dataclasses.dataclass(frozen=True)
class UndoChampion:
    """The champion before this version is champion again."""


@dataclasses.dataclass(frozen=True)
class Retire:
    """Nothing may be routed to the version any more."""

    status: VersionStatus


@dataclasses.dataclass(frozen=True)
class Reroute:
    """The model's route changes."""

    change: RouteChange


AliasEffect = SetChallenger | ClearChallenger | SetChampion | UndoChampion
Effect = CreateVersion | Register | Retire | Reroute | AliasEffect


def candidate_of(job: Job) -> Candidate | None:
    """The variant that the job puts on the route; None before its version is registered."""
    facts = job.result(JobState.REGISTERING)
    if not facts.get("name"):
        return None
    return Candidate(str(facts["name"]), str(facts["base_model"]), str(facts.get("adapter", "")))


def effects(before: Job, after: Job, event: Event) -> Iterator[Effect]:
    """What else changes when an event has led from one to the other.

    Raises:
        Impossible: A stage's facts lack what is needed; the message names it.
    """
    if event.trigger is Trigger.DONE and before.state is JobState.TRAINING:
        yield CreateVersion(_made(after.result(JobState.TRAINING)))
    candidate = candidate_of(after)
    if event.trigger is Trigger.DONE and before.state is JobState.REGISTERING:
        facts = after.result(JobState.REGISTERING)
        if candidate is None or not facts.get("digest"):
            raise Impossible("what registering found out lacks name, base_model or digest")
        yield Register(str(facts["digest"]), str(facts.get("card", "")))
        yield SetChallenger()
    if after.state is before.state or after.state not in FINAL:
        return
    if after.state is JobState.PROMOTED:
        if candidate is None:
            raise Impossible(f"job {after.id} has no registered candidate to promote")
        yield Reroute(RouteChange(RouteChangeKind.PROMOTE, candidate))
        yield ClearChallenger()
        yield SetChampion()
        return
    if before.state is JobState.PROMOTED and candidate is not None:
        yield Reroute(RouteChange(RouteChangeKind.RESTORE, candidate))
        yield UndoChampion()
    elif candidate is not None:
        yield Reroute(RouteChange(RouteChangeKind.WITHDRAW, candidate))
        yield ClearChallenger()
    if after.result(JobState.TRAINING):
        yield Retire(_REASONS[after.state])


def _made(facts: Facts) -> Made:
    kind, base_model = str(facts.get("kind", "")).lower(), str(facts.get("base_model", ""))
    if kind not in _KINDS or not base_model:
        raise Impossible(
            f"what training found out needs kind ({' or '.join(_KINDS)}) and base_model; it has "
            f"{kind!r} and {base_model!r}"
        )
    return Made(kind, base_model)
