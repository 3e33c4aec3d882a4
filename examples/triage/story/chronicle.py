"""What the platform said while the story went on: incidents, jobs and routes, with their times."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from penstock.codec import decode
from penstock.records import Record
from penstock.v1 import alert_pb2, drift_pb2, job_pb2, route_pb2

__all__ = ["ENDS", "PROMOTED", "Chronicle", "Moment"]

ENDS = ("promoted", "rolled_back", "inconclusive", "rejected", "failed", "cancelled")
PROMOTED = "promoted"


@dataclasses.dataclass(frozen=True)
class Moment:
    """Something that happened.

    Attributes:
        at_s: When Kafka got word of it, seconds since 1970.
        what: A line for people.
    """

    at_s: float
    what: str


class Chronicle:
    """Takes records of `alerts`, `jobs` and `routes` in.

    Args:
        model: Whose.

    Attributes:
        moments: What happened, in the order of its coming.
        opened_s: When the incident of quality opened, seconds since 1970; likewise `resolved_s`.
        states: When the job entered each of its states, by name.
        end: The job's last state; empty while it goes on.
        reason: Why it ended so.
        doing: What the stage that runs says of itself.
        steps: How many steps the training has made, as it told last.
        jobs: The ids of all jobs.
        shares: Who gets how much of the traffic, in per cent.
    """

    def __init__(self, model: str) -> None:
        self._model = model
        self.moments: list[Moment] = []
        self.opened_s: float | None = None
        self.resolved_s: float | None = None
        self.states: dict[str, float] = {}
        self.end = ""
        self.reason = ""
        self.doing = ""
        self.steps = 0
        self.jobs: set[str] = set()
        self.shares: Mapping[str, float] = {}
        self._incident = ""

    def take_alert(self, record: Record) -> None:
        """An alert of drift's; of quality is what the story is about."""
        alert = decode(record, alert_pb2.Alert)
        if alert.drift.model != self._model or alert.drift.kind != drift_pb2.DRIFT_KIND_QUALITY:
            return
        at_s = record.timestamp_ms / 1000
        if alert.state == alert_pb2.ALERT_STATE_OPENED and self.opened_s is None:
            self.opened_s, self._incident = at_s, alert.incident_id
            self.note(at_s, f"an incident opens: {alert.title}")
        if alert.state == alert_pb2.ALERT_STATE_RESOLVED and alert.incident_id == self._incident:
            self.resolved_s = at_s
            self.note(at_s, "the incident is resolved")

    def take_job(self, record: Record) -> None:
        """What happens to a job."""
        update = decode(record, job_pb2.JobUpdate)
        if update.model != self._model:
            return
        self.jobs.add(update.job_id)
        if update.HasField("progress"):
            self.doing = _progress(update.progress)
            if next(reversed(self.states), "") == "training":
                self.steps = update.progress.step
            return
        transition = update.transition
        name = _name(transition.to)
        step = f", step {transition.step}" if transition.step else ""
        why = f" ({transition.reason})" if transition.reason else ""
        at_s = record.timestamp_ms / 1000
        if name not in self.states or step:
            self.note(at_s, f"the job: {name.replace('_', ' ')}{step}{why}")
        self.states.setdefault(name, at_s)
        self.doing = ""
        if name in ENDS:
            self.end, self.reason = name, transition.reason

    def take_route(self, record: Record) -> None:
        """A route, which says who answers."""
        route = decode(record, route_pb2.Route)
        if route.model != self._model:
            return
        serving = [each for each in route.variants if each.stage != route_pb2.STAGE_SHADOW]
        total = sum(each.weight for each in serving) or 1
        self.shares = {each.name: 100 * each.weight / total for each in serving if each.weight}

    def note(self, at_s: float, what: str) -> None:
        """Something happened that no record tells of."""
        self.moments.append(Moment(at_s, what))


def _progress(progress: job_pb2.JobProgress) -> str:
    of = f" {progress.step} of {progress.steps}" if progress.steps else ""
    eta = f", {progress.eta_s:.0f} s to go" if progress.HasField("eta_s") else ""
    return f"{progress.message}{of}{eta}"


def _name(state: job_pb2.JobState.ValueType) -> str:
    return job_pb2.JobState.Name(state).removeprefix("JOB_STATE_").lower()
