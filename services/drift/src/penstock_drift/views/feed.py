"""What drift's doors show of the log: incidents with what people said, and where signals stand.

Readers without a group keep it up to date; it holds no offsets and writes nothing, so any worker
can answer, and the fold waits for none of it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

from penstock.codec import decode
from penstock.errors import InvalidRequest
from penstock.incidents import AlertBook, Incident
from penstock.records import Record
from penstock.telemetry import logger
from penstock.v1 import alert_pb2, drift_pb2

__all__ = ["Changes", "IncidentFeed", "SignalView"]

log = logger(__name__)

MAX_STATE_BYTES = 256 * 1024 * 1024
# A finding and what follows it; anything else leaves the signal where its baseline says.
_STANDING = (drift_pb2.DRIFT_STATE_DRIFT, drift_pb2.DRIFT_STATE_COOLDOWN)


class Changes:
    """Incidents that changed since they were last taken: the newest of each, so it is bounded."""

    def __init__(self) -> None:
        self._waiting: dict[str, Incident] = {}
        self._some = asyncio.Event()

    def add(self, incident: Incident) -> None:
        """Takes in how an incident stands now."""
        # Last, so that a slow reader sees changes in their order.
        self._waiting.pop(incident.id, None)
        self._waiting[incident.id] = incident
        self._some.set()

    async def take(self) -> list[Incident]:
        """Those that changed, as soon as there are any."""
        await self._some.wait()
        self._some.clear()
        taken, self._waiting = list(self._waiting.values()), {}
        return taken


class IncidentFeed:
    """The book of incidents, fed from `alerts` and `alert_actions`.

    Attributes:
        book: Incidents, words and silences.
    """

    def __init__(self) -> None:
        self.book = AlertBook()
        self._followers: set[Changes] = set()

    def on_alert(self, record: Record) -> None:
        """Takes a record of `alerts`; what is none is passed over."""
        try:
            incident = self.book.take_alert(decode(record, alert_pb2.Alert))
        except InvalidRequest as error:
            log.warning("no alert", error=str(error), **record.where())
            return
        for follower in self._followers:
            follower.add(incident)

    def on_action(self, record: Record) -> None:
        """Takes a record of `alert_actions`; what is none is passed over."""
        try:
            self.book.take_action(decode(record, alert_pb2.AlertAction))
        except InvalidRequest as error:
            log.warning("no action", error=str(error), **record.where())

    @contextlib.contextmanager
    def follow(self) -> Iterator[Changes]:
        """What changes while the context lasts."""
        changes = Changes()
        self._followers.add(changes)
        try:
            yield changes
        finally:
            self._followers.discard(changes)


class SignalView:
    """Where keys stand: the newest saved state of each, undecoded, and findings that stand.

    States are large and asked for seldom: they are decoded when somebody asks. They are bounded in
    all: beyond it those that were longest without news are not told of.

    Args:
        max_bytes: Of the states together.

    Attributes:
        states: By partition and key of `drift_state`: the newest value.
        findings: By model, variant, segment and signal: the state that its last event told.
    """

    def __init__(self, max_bytes: int = MAX_STATE_BYTES) -> None:
        self.states: dict[tuple[int, bytes], bytes] = {}
        self._max_bytes = max_bytes
        self._bytes = 0
        self.findings: dict[tuple[str, str, str, str], int] = {}

    def on_state(self, record: Record) -> None:
        """Takes a record of `drift_state`."""
        if record.key is None:
            return
        place = (record.partition.number, record.key)
        self._drop(place)
        if record.value is not None:
            self.states[place] = record.value
            self._bytes += len(record.value)
            while self._bytes > self._max_bytes:
                self._drop(next(iter(self.states)))

    def _drop(self, place: tuple[int, bytes]) -> None:
        self._bytes -= len(self.states.pop(place, b""))

    def on_event(self, record: Record) -> None:
        """Takes a record of `drift`; what is none is passed over."""
        try:
            event = decode(record, drift_pb2.DriftEvent)
        except InvalidRequest:
            return
        watch = (event.model, event.variant, event.segment, event.signal)
        if event.state in _STANDING:
            self.findings[watch] = event.state
        else:
            self.findings.pop(watch, None)
