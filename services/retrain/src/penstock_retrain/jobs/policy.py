"""What may start a job and how it goes: a YAML document, validated. Pure.

The default is `default_policy.yaml` beside this module, which explains every field.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from penstock.documents import DocumentError, fault_lines, read_mapping
from penstock.v1 import drift_pb2
from penstock_retrain.canary.policy import CanaryPolicy, MetricPolicy, ShadowPolicy, StepPolicy
from penstock_retrain.jobs.states import Cause, CauseKind, JobState

__all__ = [
    "RETRAIN",
    "Ask",
    "PastJob",
    "Policy",
    "PolicyError",
    "ask_of",
    "backoff_s",
    "default_document",
    "merged_document",
    "parse_policy",
    "refusal",
]

# The action by which drift asks for a retraining.
RETRAIN = "retrain"
DAY_US = 24 * 3600 * 1_000_000

_APPROVALS = {
    "training": JobState.TRAINING,
    "shadow": JobState.SHADOW,
    "canary": JobState.CANARY,
    "promotion": JobState.PROMOTED,
}


class PolicyError(Exception):
    """A document is no policy; a line per error, which names the field and the remedy."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Start(_Strict):
    """What may start a job without anybody asking."""

    enabled: bool = True
    models: tuple[str, ...] = ("*",)
    max_age_s: float = Field(default=3600, gt=0)
    cooldown_s: float = Field(default=3600, ge=0)


class Budget(_Strict):
    """What jobs may use that drift started, of one model, in 24 hours."""

    jobs_per_day: int = Field(default=4, ge=0, le=1000)
    compute_s_per_day: float = Field(default=14_400, ge=0)


class Attempts(_Strict):
    """How often a stage is tried."""

    max: int = Field(default=3, ge=1, le=20)
    backoff_s: float = Field(default=5, ge=0, le=3600)
    max_backoff_s: float = Field(default=300, ge=0, le=86_400)


class Policy(_Strict):
    """What may start a job and how it goes.

    Attributes:
        approve_before: What a person has to say yes to.
        dataset: As its stage reads it, as are training and gates.
        shadow: What a candidate does before it gets traffic.
        canary: How it earns the champion's place.
    """

    start: Start = Start()
    budget: Budget = Budget()
    attempts: Attempts = Attempts()
    approve_before: tuple[Literal["training", "shadow", "canary", "promotion"], ...] = ()
    dataset: Mapping[str, Any] = Field(default_factory=dict)
    training: Mapping[str, Any] = Field(default_factory=dict)
    gates: Mapping[str, Any] = Field(default_factory=dict)
    shadow: ShadowPolicy = ShadowPolicy()
    canary: CanaryPolicy = CanaryPolicy()

    @property
    def approvals(self) -> frozenset[JobState]:
        """The states that are entered with an approval only."""
        return frozenset(_APPROVALS[name] for name in self.approve_before)


@dataclasses.dataclass(frozen=True)
class Ask:
    """A finding that asks for a retraining.

    Attributes:
        model: Whose.
        cause: The finding.
        found_us: When it was found, microseconds since 1970.
    """

    model: str
    cause: Cause
    found_us: int


@dataclasses.dataclass(frozen=True)
class PastJob:
    """What has to be known of an earlier job of the model.

    Attributes:
        kind: What started it.
        created_us: When it was opened, microseconds since 1970.
        ended_us: When it ended; None while it is active.
        compute_s: Time in dataset, training and evaluating.
    """

    kind: CauseKind
    created_us: int
    ended_us: int | None
    compute_s: float


def ask_of(event: drift_pb2.DriftEvent) -> Ask | None:
    """What an event of `drift` asks for; None where it asks for no retraining.

    Only quality evidence does, whoever wrote the event and whatever action it names, and only a
    finding that stands.
    """
    if (
        event.kind != drift_pb2.DRIFT_KIND_QUALITY
        or event.action != RETRAIN
        or event.state != drift_pb2.DRIFT_STATE_DRIFT
        or not event.model
        or not event.event_id
    ):
        return None
    return Ask(
        model=event.model,
        cause=Cause(
            kind=CauseKind.INCIDENT,
            id=event.incident_id,
            event_id=event.event_id,
            reason=f"{event.signal} of {event.variant} went from {event.mean_before:.4g} to "
            f"{event.mean_after:.4g}",
        ),
        found_us=event.detected_at.ToMicroseconds(),
    )


_MODELS: tuple[type[BaseModel], ...] = (
    *(Policy, Start, Budget, Attempts),
    *(ShadowPolicy, CanaryPolicy, MetricPolicy, StepPolicy),
)


def refusal(policy: Policy, ask: Ask, past: Sequence[PastJob], now_us: int) -> str | None:
    """Why an ask starts no job; None where it does.

    Args:
        policy: The one in force.
        ask: The finding.
        past: The model's jobs; those of the last day and of the cool-down suffice.
        now_us: The present, microseconds since 1970.
    """
    start, budget = policy.start, policy.budget
    if not start.enabled:
        return "the policy starts no jobs by itself (start.enabled)"
    if not any(fnmatch.fnmatchcase(ask.model, pattern) for pattern in start.models):
        return f"the policy starts no jobs for {ask.model} (start.models)"
    age_s = (now_us - ask.found_us) / 1e6
    if age_s > start.max_age_s:
        return f"the finding is {age_s:.0f} s old; the policy wants {start.max_age_s:g} at most"
    if any(job.ended_us is None for job in past):
        return "the model has an active job"
    ended_us = max((job.ended_us for job in past if job.ended_us is not None), default=None)
    if ended_us is not None and now_us - ended_us < start.cooldown_s * 1e6:
        return (
            f"the last job ended {(now_us - ended_us) / 1e6:.0f} s ago; the policy waits "
            f"{start.cooldown_s:g} (start.cooldown_s)"
        )
    lately = [
        job for job in past if job.kind is CauseKind.INCIDENT and now_us - job.created_us < DAY_US
    ]
    if len(lately) >= budget.jobs_per_day:
        jobs = f"{len(lately)} job{'s' * (len(lately) != 1)}"
        return f"{jobs} within a day; the budget is {budget.jobs_per_day}"
    used_s = sum(job.compute_s for job in lately)
    if used_s >= budget.compute_s_per_day:
        return f"jobs used {used_s:.0f} s within a day; the budget is {budget.compute_s_per_day:g}"
    return None


def backoff_s(policy: Policy, failed: int) -> float:
    """How long a stage waits that has failed so often, from 1 on: doubled each time."""
    attempts = policy.attempts
    return float(min(attempts.max_backoff_s, attempts.backoff_s * 2.0 ** min(failed - 1, 30)))


@functools.lru_cache(maxsize=32)
def parse_policy(document: str) -> Policy:
    """The policy of a document; what it leaves out of a section is as in the default document.

    Raises:
        PolicyError: It is none; every error on a line of its own.
    """
    try:
        return Policy.model_validate(_merged(document))
    except DocumentError as error:
        raise PolicyError(str(error)) from None
    except ValidationError as error:
        raise PolicyError("\n".join(fault_lines(error, lambda _: _fields()))) from None


def merged_document(document: str) -> str:
    """A whole policy as YAML, with the defaults of then: what a job keeps.

    Raises:
        PolicyError: The document is no policy.
    """
    parse_policy(document)
    return yaml.safe_dump(_merged(document), sort_keys=False)


def default_document() -> str:
    """The default policy as YAML, with its comments."""
    return (resources.files(__package__) / "default_policy.yaml").read_text(encoding="utf-8")


def _merged(document: str) -> dict[str, Any]:
    wanted = "no policy: write `section:` with `field: value` lines below it"
    found = read_mapping(document, wanted)
    made: dict[str, Any] = yaml.safe_load(default_document())
    for name, section in found.items():
        both = isinstance(section, dict) and isinstance(made.get(name), dict)
        made[name] = made[name] | section if both else section
    return made


def _fields() -> Iterable[str]:
    return sorted({field for model in _MODELS for field in model.model_fields})
