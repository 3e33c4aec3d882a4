"""Opens jobs: those that drift asks for, within the policy, and those that people start."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable

from penstock.errors import InvalidRequest
from penstock_retrain.jobs.policy import (
    DAY_US,
    Ask,
    Policy,
    PolicyError,
    merged_document,
    parse_policy,
    refusal,
)
from penstock_retrain.jobs.states import Cause, CauseKind, Job
from penstock_retrain.jobs.store import JobStore

__all__ = ["Opening", "job_id_of"]

MAX_NAME = 200
MAX_TEXT = 2000


def job_id_of(kind: str, key: str) -> str:
    """The id of the job of a finding, or of a start with an idempotency key."""
    return f"job-{hashlib.sha256(f'{kind}{chr(0)}{key}'.encode()).hexdigest()[:12]}"


class Opening:
    """Opens jobs in a store. Blocks: use a thread.

    Args:
        store: Where jobs are.
        policy: Gives the document in force, YAML.
    """

    def __init__(self, store: JobStore, policy: Callable[[], str]) -> None:
        self._store = store
        self._policy = policy

    def asked(self, ask: Ask, now_us: int) -> tuple[Job | None, str]:
        """The job that a finding asks for, opened now or before; else None and why not.

        Raises:
            ActiveJob: Another process opened one meanwhile.
        """
        key = f"finding/{ask.cause.event_id}"
        known = self._store.started_by(key)
        if known is not None:
            return known, ""
        document = merged_document(self._policy())
        policy = parse_policy(document)
        since_us = now_us - max(DAY_US, round(policy.start.cooldown_s * 1e6))
        why_not = refusal(policy, ask, self._store.past(ask.model, since_us), now_us)
        if why_not is not None:
            return None, why_not
        job_id = job_id_of("finding", ask.cause.event_id)
        job = _job(job_id, ask.model, ask.cause, policy, document, now_us)
        return self._store.open_job(job, key), ""

    def start(
        self, model: str, *, document: str, by: str, reason: str, key: str, now_us: int
    ) -> Job:
        """A job that a person starts: neither cool-down nor budget keep it.

        Raises:
            InvalidRequest: The model's name or the policy is none.
            ActiveJob: The model has an active job.
        """
        if not model or len(model) > MAX_NAME:
            raise InvalidRequest("name the model to be retrained", field="model")
        try:
            whole = merged_document(document or self._policy())
        except PolicyError as error:
            raise InvalidRequest(str(error), field="policy") from error
        cause = Cause(CauseKind.MANUAL, by=by[:MAX_NAME], reason=reason[:MAX_TEXT])
        key = key and f"start/{model}/{key}"
        job_id = job_id_of("start", key or uuid.uuid4().hex)
        job = _job(job_id, model, cause, parse_policy(whole), whole, now_us)
        return self._store.open_job(job, key)


def _job(job_id: str, model: str, cause: Cause, policy: Policy, document: str, now_us: int) -> Job:
    return Job(
        job_id,
        model,
        cause,
        document,
        now_us,
        now_us,
        approvals=policy.approvals,
        max_attempts=policy.attempts.max,
    )
