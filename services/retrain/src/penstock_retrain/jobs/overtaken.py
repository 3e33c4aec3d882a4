"""What becomes of a job whose promotion never happened: somebody else's route came first."""

from __future__ import annotations

from sqlalchemy.engine import Connection

from penstock.telemetry import logger
from penstock_retrain.jobs.changing import change_job, locked
from penstock_retrain.jobs.outbox import Entry, head
from penstock_retrain.jobs.route_plan import champion_of
from penstock_retrain.jobs.stages import RouteChangeKind, StageBroken
from penstock_retrain.jobs.states import Event, Impossible, JobState, Trigger

__all__ = ["undo_promotion"]

log = logger(__name__)


def undo_promotion(connection: Connection, entry: Entry, now_us: int) -> None:
    """Rolls a job back whose promotion cannot be made any more; other changes undo nothing.

    Nothing is undone where the route that stands promotes the same candidate.

    Args:
        connection: The transaction that took the promotion out of the outbox: so no death comes
            between the two.
        entry: The promotion.
        now_us: The present, microseconds since 1970.
    """
    if entry.change.kind is not RouteChangeKind.PROMOTE:
        return
    standing = head(connection, entry.model)
    if standing is not None and champion_of(standing) == entry.change.candidate.name:
        return
    job = locked(connection, entry.job_id)
    if job is None or job.state is not JobState.PROMOTED:
        return
    reason = (
        "somebody else's route came before the promotion, and changed what the candidate gets or "
        "who is champion"
    )
    event = Event(Trigger.ROLLED_BACK_BY_HAND, now_us, reason)
    try:
        with connection.begin_nested():
            change_job(connection, job, event, None)
    except (Impossible, StageBroken) as error:
        # A later promotion has its place already, or the route names it otherwise.
        log.warning("a promotion was overtaken", job=job.id, reason=str(error))
