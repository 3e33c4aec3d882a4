"""The errors of retrain, each saying what to do next."""

from __future__ import annotations

from penstock.errors import Unavailable
from penstock.rpc.errors import FailedPrecondition, NotFound

__all__ = [
    "ActiveJob",
    "AliasMoved",
    "NoSuchJob",
    "NoSuchVersion",
    "NotAllowed",
    "RetrainUnavailable",
]


class RetrainUnavailable(Unavailable):
    """The database could not do it; nothing of the call was written. Try again."""


class NoSuchJob(NotFound):
    """There is no job of that id."""

    def __init__(self, job_id: str) -> None:
        super().__init__(
            f"there is no job {job_id[:100]!r}; see: penstock jobs list", field="job_id"
        )


class NoSuchVersion(NotFound):
    """The registry has no such version."""


class ActiveJob(FailedPrecondition):
    """The model has a job already."""

    def __init__(self, model: str, job_id: str, state: str) -> None:
        super().__init__(
            f"{model} has an active job, {job_id}, which is {state}; wait for it (penstock jobs "
            f"watch {job_id}) or end it (penstock jobs abort {job_id})",
            field="model",
        )


class NotAllowed(FailedPrecondition):
    """The job's state, the policy or the route does not allow it."""


class AliasMoved(FailedPrecondition):
    """An alias is not where whoever wants to move it thought."""

    def __init__(self, model: str, alias: str, expected: int, found: int) -> None:
        super().__init__(
            f"{alias} of {model} is version {found or 'none'}, not {expected or 'none'}: somebody "
            "moved it meanwhile; look with penstock rollout history, then repeat",
            field="alias",
        )
