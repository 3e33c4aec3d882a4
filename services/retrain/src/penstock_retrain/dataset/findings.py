"""What drift found that a job is about: which segments, since when."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterable
from typing import Protocol

from penstock.codec import decode
from penstock.errors import InvalidRequest
from penstock.kafka.ports import LogError
from penstock.kafka.reader import LogReader, Start
from penstock.records import Record
from penstock.telemetry import logger
from penstock.v1 import drift_pb2

__all__ = ["Drift", "Findings", "KafkaFindings", "drift_of"]

log = logger(__name__)

READ_S = 60.0


@dataclasses.dataclass(frozen=True)
class Drift:
    """What an incident says of the traffic.

    Attributes:
        onset_ms: When the first of its changes began, milliseconds since 1970; None where no
            finding says.
        segments: Those in which quality has changed, `label=value`; without all traffic.
    """

    onset_ms: int | None = None
    segments: tuple[str, ...] = ()


class Findings(Protocol):
    """Where findings are kept."""

    async def of(self, incident_id: str, model: str) -> Drift:
        """What was found of a model in an incident.

        Raises:
            LogError: They cannot be read now.
        """
        ...


class KafkaFindings:
    """The topic `drift`, read from its beginning: findings are few.

    Args:
        bootstrap: Kafka's bootstrap servers.
        topic: The topic's full name.
    """

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._bootstrap = bootstrap
        self._topic = topic

    async def of(self, incident_id: str, model: str) -> Drift:
        """See `Findings`."""
        events: list[drift_pb2.DriftEvent] = []

        def take(record: Record) -> None:
            try:
                event = decode(record, drift_pb2.DriftEvent)
            except InvalidRequest:
                log.warning("a finding cannot be read", **record.where())
                return
            if event.incident_id == incident_id:
                events.append(event)

        reader = LogReader(self._bootstrap, self._topic, start=Start.BEGINNING)
        reading = asyncio.create_task(reader.run(take))
        try:
            async with asyncio.timeout(READ_S):
                await reader.caught_up.wait()
        except TimeoutError as error:
            raise LogError(f"{self._topic} cannot be read to its end") from error
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        return drift_of(events, model)


def drift_of(events: Iterable[drift_pb2.DriftEvent], model: str) -> Drift:
    """What findings of quality say together. Pure.

    Of each signal of a segment the newest finding counts: one that was taken back says nothing.
    """
    newest: dict[tuple[str, str, str], drift_pb2.DriftEvent] = {}
    for event in events:
        if event.model == model and event.kind == drift_pb2.DRIFT_KIND_QUALITY:
            newest[event.variant, event.segment, event.signal] = event
    standing = [e for e in newest.values() if e.state == drift_pb2.DRIFT_STATE_DRIFT]
    onsets = [e.onset.ToMilliseconds() for e in standing if e.HasField("onset")]
    return Drift(
        onset_ms=min(onsets, default=None),
        segments=tuple(sorted({e.segment for e in standing if e.segment})),
    )
