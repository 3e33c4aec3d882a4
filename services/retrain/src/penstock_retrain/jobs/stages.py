"""What a stage of a job is, for whoever writes one, and what the runner gives it.

A stage is idempotent: the process that runs it may be killed at any instruction, and another one
runs the same stage of the same job again. What a killed run left is found by the job's id and
continued or removed; what it kept with `Desk.keep` is in `job.result(stage)`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Protocol

from penstock_retrain.jobs.states import Facts, Job

__all__ = [
    "Candidate",
    "Desk",
    "JobMoved",
    "NotYet",
    "Outcome",
    "Progress",
    "Report",
    "RouteChange",
    "RouteChangeKind",
    "Stage",
    "StageBroken",
    "StageResult",
    "Standing",
    "Withdrawn",
]


class Outcome(StrEnum):
    """How a stage ended. DONE leads to the next; the others have one stage that may say so."""

    DONE = "done"
    REFUSED = "refused"  # of the gates: the candidate is not good enough
    PROMOTE = "promote"  # of the canary
    ROLL_BACK = "roll_back"  # of shadow and canary
    INCONCLUSIVE = "inconclusive"  # of shadow and canary: holds, and asks a person


@dataclasses.dataclass(frozen=True)
class StageResult:
    """What a stage found out.

    Facts that others read, beside whatever people want to see:
    - dataset: `digest` and `sources` (first and last offset by `topic/partition`) for the card;
    - training: `kind` (`adapter` or `full`), `base_model` (the engine's model) and `dir` (the
      weights), without which there is no version; `metrics` (numbers by name) for the mirror;
    - evaluating: `rows`, each with metric, slice, n, estimate, low, high, threshold and verdict,
      for the card;
    - registering: `name`, `base_model`, `adapter`, `digest`, `dir`, of which
      `penstock_retrain.jobs.effects.candidate_of` makes the candidate.

    Attributes:
        outcome: How it ended.
        facts: For later stages, people and lineage, as JSON: paths, digests, counts; no text of
            requests or answers.
        reason: Why, for people, where the outcome is not DONE.
    """

    outcome: Outcome
    facts: Facts = dataclasses.field(default_factory=dict)
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far a stage is.

    Attributes:
        message: One line for people, without text of requests or answers.
        step: Steps done, of those there are; 0 where it has none.
        steps: How many there are; 0 where nobody knows.
        eta_s: Seconds until the stage's end; None where nobody knows.
        metrics: Numbers by name, with the unit in it: `loss`, `tokens_per_s`.
    """

    message: str = ""
    step: int = 0
    steps: int = 0
    eta_s: float | None = None
    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)


# Never blocks and never fails: progress is best effort. May be called from another thread.
Report = Callable[[Progress], None]


class StageBroken(Exception):
    """The stage cannot succeed however often it is tried; the message says what to change."""


class JobMoved(Exception):
    """The job went on without this runner: aborted, rolled back by hand, or taken up elsewhere.

    Let it through: whatever the stage would still do is nobody's wish any more.
    """


class Withdrawn(Exception):
    """Somebody else took the candidate's traffic away. Let it through: the job is rolled back."""


class NotYet(Exception):
    """What is to be removed is needed still: the runner tries again later."""


class Stage(Protocol):
    """One state's work."""

    async def run(self, job: Job, progress: Report) -> StageResult:
        """Does the stage's work, or what is left of it. Does not block the loop.

        Is cancelled when the job is aborted or another process has taken it up.

        Raises:
            StageBroken: Trying again would not help: the job fails.
            JobMoved: From the desk, as Withdrawn; let them through.
            Exception: The runner tries again, a bounded number of times, later each time.
        """
        ...

    async def clean(self, job: Job) -> None:
        """Removes what the stage's runs left and nobody needs. Idempotent.

        Called once a job has ended, whatever its end; the stage looks at `job.state` to know what
        is still needed. Reports, lineage and datasets that lineage names stay.

        Raises:
            NotYet: Something has to stay for now.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Candidate:
    """The variant that a job puts on the route.

    Attributes:
        name: The variant's, never used again for something else.
        base_model: The engine's model that answers.
        adapter: The adapter version's name; empty for full weights.
    """

    name: str
    base_model: str
    adapter: str = ""


class RouteChangeKind(StrEnum):
    """What a job does to its model's route."""

    SHADOW = "shadow"  # the candidate gets copies of a percentage of the requests
    SPLIT = "split"  # the candidate takes a percentage of the traffic
    PROMOTE = "promote"  # the candidate becomes the champion and takes its traffic
    WITHDRAW = "withdraw"  # the candidate takes nothing; applied to whatever route stands
    RESTORE = "restore"  # the champion before takes all traffic again
    SETTLE = "settle"  # of the publisher alone: what stands, again, where two had one version


@dataclasses.dataclass(frozen=True)
class RouteChange:
    """A change of a route, to leave through the outbox.

    Attributes:
        kind: What.
        candidate: The job's variant.
        percent: Of requests (SHADOW) or of the traffic (SPLIT), above 0, at most 100.
        expected_version: The route's version that the change was decided at; where another stands
            when it is made, nothing is changed and `JobMoved` is raised. None: any. Withdrawals
            are made whatever stands.
    """

    kind: RouteChangeKind
    candidate: Candidate
    percent: float = 0.0
    expected_version: int | None = None


@dataclasses.dataclass(frozen=True)
class Standing:
    """A model's route as far as the service knows, its own unpublished changes included.

    Attributes:
        version: Its version; 0 where there is no route.
        candidate_percent: What the candidate has of the traffic.
        shadow_percent: Of how many requests it gets copies.
        published: Whether that version is on the log.
        champion: The champion's variant; empty where there is no route.
        champion_percent: What the champion has of the traffic.
        by_tenant: Whether all requests of a tenant are answered by one variant.
        names_candidate: Whether the candidate is on it at all, with or without traffic.
    """

    version: int
    candidate_percent: float
    shadow_percent: float
    published: bool
    champion: str = ""
    champion_percent: float = 0.0
    by_tenant: bool = False
    names_candidate: bool = False


class Desk(Protocol):
    """Where a stage keeps what it knows while it runs; given to a stage when it is made."""

    async def keep(
        self,
        job: Job,
        facts: Facts,
        *,
        step: int | None = None,
        change: RouteChange | None = None,
    ) -> Job:
        """Keeps facts in the job, and changes the route, in one transaction. Returns the new job.

        Args:
            job: As the stage has it: its claim and state must be those of the job.
            facts: Laid over what the stage kept before.
            step: The canary's step that is entered.
            change: Leaves through the outbox, at most a second after this returned.

        Raises:
            JobMoved: Nothing was kept.
            Withdrawn: Somebody took the candidate's traffic away, and the change would give it
                back. Nothing was kept.
            StageBroken: The change cannot be made of the route. Nothing was kept.
            Unavailable: The database cannot be reached; nothing was kept.
        """
        ...

    async def note(self, job: Job, facts: Facts) -> Job:
        """Keeps facts in the job, in one transaction, without a row in its history.

        For what changes every second, such as how far a log was read: nobody is told of it.

        Args:
            job: As the stage has it: its claim and state must be those of the job.
            facts: Laid over what the stage kept before.

        Raises:
            JobMoved: Nothing was kept.
            Unavailable: The database cannot be reached; nothing was kept.
        """
        ...

    async def standing(self, job: Job, candidate: Candidate) -> Standing:
        """The route as it stands.

        Raises:
            Unavailable: It cannot be read now.
        """
        ...
