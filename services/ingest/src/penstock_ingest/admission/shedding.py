"""Requests that are refused for a while, so that the others are answered. Pure.

What was admitted stays, and so does a repeat of it. Probes do not come by the doors.
"""

from __future__ import annotations

import datetime as dt

from penstock.measures import Measure, Measures
from penstock.v1 import admitted_pb2
from penstock_ingest import metrics
from penstock_ingest.errors import Overloaded

__all__ = ["MAX_RETRY_AFTER_S", "Shedding"]

# Clients make little of longer ones; and the measure may be ended before its time.
MAX_RETRY_AFTER_S = 60.0


class Shedding:
    """Refuses by the measures that are in force.

    Args:
        measures: Those that `control` tells of.
    """

    def __init__(self, measures: Measures | None = None) -> None:
        self._measures = measures or Measures()

    def check(self, admitted: admitted_pb2.AdmittedRequest, now: dt.datetime) -> None:
        """Looks at a request that is about to be written for the first time.

        Raises:
            Overloaded: It is refused for now; says until when.
        """
        request = admitted.request
        for measure in self._measures.sheds(request.model, now):
            if measure.refuses(request.priority, admitted.request_id):
                metrics.SHED.labels(request.model).inc()
                raise _refusal(measure, now)

    def sheds(self, model: str, now: dt.datetime) -> bool:
        """Whether requests for a model are refused now: then shadows get no copies either."""
        return any(True for _ in self._measures.sheds(model, now))


def _refusal(measure: Measure, now: dt.datetime) -> Overloaded:
    until = measure.until.replace(microsecond=0).isoformat().replace("+00:00", "Z")
    what, remedy = "requests", "try again then"
    if measure.priority_above is not None:
        what = f"requests with a priority value above {measure.priority_above}"
        remedy = f"{remedy}, or send what is urgent with a lower one"
    share = "" if measure.share >= 1 else f"{measure.share:.0%} of the "
    return Overloaded(
        f"{share}{what} for {measure.model} are refused until {until}, so that the others are "
        f"answered; {remedy}",
        field="priority" if measure.priority_above is not None else "",
        retry_after_s=min((measure.until - now).total_seconds(), MAX_RETRY_AFTER_S),
    )
