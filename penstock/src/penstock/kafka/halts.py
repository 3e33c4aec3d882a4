"""What people are told of a partition that stopped at a limit on dead letters, and its resumption.

The consumer writes these alerts in the transaction that notes the halt beside the position, so an
alert is there exactly when the partition stands still.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Callable, Sequence

from google.protobuf.timestamp_pb2 import Timestamp

from penstock.codec import JSON, decode, encode
from penstock.errors import InvalidRequest
from penstock.kafka.limits import Breach
from penstock.records import Outgoing, Partition, Record
from penstock.v1 import alert_pb2, control_pb2

__all__ = [
    "HaltAlerts",
    "Resumes",
    "alert_record",
    "halt_alert",
    "resume_applies",
    "resume_command",
    "resumed_alert",
]

RUNBOOK = "docs/runbooks/dead-letters.md"


@dataclasses.dataclass(frozen=True)
class HaltAlerts:
    """Makes the alert records of one consumer; see `penstock.kafka.worker.Halts`.

    Attributes:
        service: Who reads.
        group: Its consumer group.
        topic: The full name of `alerts`.
    """

    service: str
    group: str
    topic: str

    def opened(self, partition: Partition, breach: Breach, halted_at_ms: int) -> Sequence[Outgoing]:
        """Tells that a partition stands still."""
        alert = halt_alert(
            service=self.service,
            group=self.group,
            partition=partition,
            breach=breach,
            halted_at_ms=halted_at_ms,
        )
        return [alert_record(alert, self.topic)]

    def resolved(self, partition: Partition, halted_at_ms: int) -> Sequence[Outgoing]:
        """Tells that it goes on."""
        alert = resumed_alert(
            service=self.service,
            group=self.group,
            partition=partition,
            halted_at_ms=halted_at_ms,
            now=dt.datetime.now(dt.UTC),
        )
        return [alert_record(alert, self.topic)]


class Resumes:
    """Takes records of `control` in for one consumer; never raises for what a record holds.

    Args:
        group: The consumer's group.
        topic: The full name of the topic that it reads.
        resume: Lets a partition, or all where it is None, go on that halted before an instant, in
            milliseconds since 1970.
    """

    def __init__(self, group: str, topic: str, resume: Callable[[int | None, int], object]) -> None:
        self._group = group
        self._topic = topic
        self._resume = resume

    def take(self, record: Record) -> None:
        """Passes a command on that is meant for this consumer."""
        try:
            control = decode(record, control_pb2.Control)
        except InvalidRequest:
            return
        command = control.resume
        if (
            control.WhichOneof("command") == "resume"
            and command.group == self._group
            and command.topic == self._topic
        ):
            number = command.partition if command.HasField("partition") else None
            self._resume(number, command.requested_at.ToMilliseconds())


def resume_command(group: str, partition: Partition) -> str:
    """What to type so that a halted partition goes on."""
    return (
        f"penstock consumers resume {group} --topic {partition.topic} "
        f"--partition {partition.number}"
    )


def halt_alert(
    *, service: str, group: str, partition: Partition, breach: Breach, halted_at_ms: int
) -> alert_pb2.Alert:
    """Opens the incident of a partition that stands still. A page: its requests wait.

    Args:
        service: Who stopped.
        group: The consumer group.
        partition: The input partition.
        breach: Which limit was met, with its figures.
        halted_at_ms: When it stopped, in milliseconds since 1970, UTC; names the incident.
    """
    alert = _alert(service, group, partition, halted_at_ms)
    alert.state = alert_pb2.ALERT_STATE_OPENED
    alert.severity = alert_pb2.SEVERITY_PAGE
    alert.title = (
        f"{service} stopped reading {partition.topic}, partition {partition.number}: "
        "too many dead letters"
    )
    alert.summary = (
        f"{breach}. Nothing more of the partition is read. Find the cause with "
        f"`penstock dlq list --service {service}`, mend it, then run: "
        f"{resume_command(group, partition)}"
    )
    alert.labels["limit"] = breach.broken.value
    alert.labels["dead"] = str(breach.dead)
    alert.labels["handled"] = str(breach.handled)
    alert.labels["run"] = str(breach.run)
    alert.alert_id = f"{alert.incident_id}/opened"
    return alert


def resumed_alert(
    *,
    service: str,
    group: str,
    partition: Partition,
    halted_at_ms: int,
    now: dt.datetime,
) -> alert_pb2.Alert:
    """Resolves the incident that `halt_alert` opened at that instant."""
    alert = _alert(service, group, partition, halted_at_ms)
    alert.state = alert_pb2.ALERT_STATE_RESOLVED
    alert.severity = alert_pb2.SEVERITY_INFO
    alert.title = f"{service} reads {partition.topic}, partition {partition.number}, again"
    alert.summary = "An operator let it go on; records are read from where it stopped."
    alert.updated_at.FromDatetime(now)
    alert.alert_id = f"{alert.incident_id}/resolved"
    return alert


def alert_record(alert: alert_pb2.Alert, topic: str) -> Outgoing:
    """An alert as the record that people read.

    Args:
        alert: The alert.
        topic: The full name of `alerts`.
    """
    return encode(
        alert,
        topic=topic,
        key=alert.incident_id,
        source=alert.service,
        event_id=alert.alert_id,
        encoding=JSON,
    )


def resume_applies(
    resume: control_pb2.Resume, *, group: str, partition: Partition, halted_at_ms: int
) -> bool:
    """Whether a command lets a partition go on that stopped at an instant.

    Only a later command counts: `control` keeps old ones, which were for an earlier halt.

    Args:
        resume: The command.
        group: The consumer group.
        partition: The halted partition.
        halted_at_ms: When it stopped, in milliseconds since 1970, UTC.
    """
    return (
        resume.group == group
        and resume.topic == partition.topic
        and (not resume.HasField("partition") or resume.partition == partition.number)
        and resume.requested_at.ToMilliseconds() > halted_at_ms
    )


def _alert(service: str, group: str, partition: Partition, halted_at_ms: int) -> alert_pb2.Alert:
    stamp = Timestamp()
    stamp.FromMilliseconds(halted_at_ms)
    return alert_pb2.Alert(
        incident_id=f"dead-letters/{group}/{partition.topic}/{partition.number}/{halted_at_ms}",
        service=service,
        labels={
            "group": group,
            "topic": partition.topic,
            "partition": str(partition.number),
        },
        runbook=RUNBOOK,
        opened_at=stamp,
        updated_at=stamp,
    )
