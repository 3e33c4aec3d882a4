"""The pump's ear for commands: cancelled requests, consumers that may go on, measures."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
from collections import OrderedDict
from collections.abc import Callable

from penstock.codec import decode
from penstock.errors import InvalidRequest
from penstock.kafka.ports import LogError
from penstock.kafka.reader import LogReader, Start
from penstock.records import Record
from penstock.telemetry import logger
from penstock.topics import topic_of
from penstock.v1 import admitted_pb2, control_pb2

__all__ = ["LONGEST_DEADLINE_S", "CancelledIds", "Commands", "ControlReader"]

log = logger(__name__)

LONGEST_DEADLINE_S = 86_400.0
# Clocks of the ingest instances that admit and cancel may differ this much. An id is admitted
# anew an hour after its end at the soonest, so that the two are never mixed up.
SKEW = dt.timedelta(seconds=60)


@dataclasses.dataclass(frozen=True, slots=True)
class _Cancelled:
    at: dt.datetime
    until: dt.datetime


class CancelledIds:
    """Requests that were cancelled and may still be delivered, for the first time or again. Pure.

    A cancellation stays until the request's deadline: work that comes back after a fault is
    cancelled again. It covers what was admitted before it, since an idempotency key whose request
    ended long ago may be admitted anew under the same id.

    Args:
        max_ids: How many are kept; the oldest go first.
    """

    def __init__(self, max_ids: int = 200_000) -> None:
        self._max_ids = max_ids
        self._ids: OrderedDict[tuple[str, str], _Cancelled] = OrderedDict()

    def __len__(self) -> int:
        return len(self._ids)

    def note(
        self, request_id: str, tenant: str, at: dt.datetime, until: dt.datetime, now: dt.datetime
    ) -> bool:
        """Keeps a cancellation; tells whether it still means something.

        Args:
            request_id: The request's id.
            tenant: Whose request it ends; another tenant's of the same id stays as it is.
            at: When it was asked for, UTC.
            until: The request's deadline, UTC.
            now: The present, UTC.
        """
        if until <= now:
            return False
        self._ids[request_id, tenant] = _Cancelled(at, until)
        self._ids.move_to_end((request_id, tenant))
        self._shrink(now)
        return True

    def covers(self, request_id: str, tenant: str, admitted_at: dt.datetime) -> bool:
        """Whether a tenant's request of that admission was cancelled."""
        cancelled = self._ids.get((request_id, tenant))
        return cancelled is not None and admitted_at <= cancelled.at + SKEW

    def _shrink(self, now: dt.datetime) -> None:
        # In the order of noting, so what lies behind a long deadline may be kept too long: the
        # number bounds it.
        while self._ids:
            oldest = next(iter(self._ids.values()))
            if len(self._ids) <= self._max_ids and oldest.until > now:
                return
            self._ids.popitem(last=False)


class Commands:
    """Takes records of `control` in; never raises for what a record holds.

    Args:
        ids: Where cancellations are noted, before `on_cancel` is called.
        on_cancel: Ends a tenant's request if it is here: request id, tenant. Called again for a
            repeat.
        on_resume: Lets a halted partition go on, where the command is later than the halt.
        on_measure: Takes a record that holds a measure about a model.
        now: The clock, UTC.
    """

    def __init__(
        self,
        ids: CancelledIds,
        *,
        on_cancel: Callable[[str, str], object],
        on_resume: Callable[[control_pb2.Resume], object],
        on_measure: Callable[[Record], object] = lambda _: None,
        now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
    ) -> None:
        self._ids = ids
        self._on_cancel = on_cancel
        self._on_resume = on_resume
        self._on_measure = on_measure
        self._now = now

    def take(self, record: Record) -> None:
        """Takes one record in."""
        try:
            control = decode(record, control_pb2.Control)
            cancelled = _cancelled(control.cancel, record)
        except (InvalidRequest, ValueError, OverflowError) as error:
            log.warning(
                "a command is passed over",
                reason=type(error).__name__,
                partition=record.partition.number,
                offset=record.offset,
            )
            return
        command = control.WhichOneof("command")
        if command == "cancel":
            self._cancel(control.cancel, cancelled)
        elif command == "resume":
            self._on_resume(control.resume)
        elif command == "measure":
            self._on_measure(record)

    def _cancel(self, cancel: admitted_pb2.Cancellation, cancelled: _Cancelled) -> None:
        at, until = cancelled.at, cancelled.until
        if self._ids.note(cancel.request_id, cancel.tenant, at, until, self._now()):
            self._on_cancel(cancel.request_id, cancel.tenant)


def _cancelled(cancel: admitted_pb2.Cancellation, record: Record) -> _Cancelled:
    at = dt.datetime.fromtimestamp(record.timestamp_ms / 1000, dt.UTC)
    if cancel.HasField("requested_at"):
        at = cancel.requested_at.ToDatetime(dt.UTC)
    until = at + dt.timedelta(seconds=LONGEST_DEADLINE_S)
    if cancel.HasField("deadline"):
        until = min(until, cancel.deadline.ToDatetime(dt.UTC))
    return _Cancelled(at, until)


class ControlReader:
    """Reads all of `control` without a group, from now minus the longest deadline.

    Args:
        bootstrap: Kafka's bootstrap servers.
        topic_prefix: What stands before the dot in topics' names.
        commands: Takes the records in.
        horizon_s: How far back it begins.
    """

    def __init__(
        self,
        bootstrap: str,
        topic_prefix: str,
        commands: Commands,
        *,
        horizon_s: float = LONGEST_DEADLINE_S,
    ) -> None:
        self._commands = commands
        start = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=horizon_s)
        topic = topic_of("control").full_name(topic_prefix)
        self._reader = LogReader(bootstrap, topic, start=Start.at(start))

    async def run(self) -> None:
        """Reads until cancelled; goes on after faults of Kafka."""
        await self._reader.run(self._commands.take)

    async def caught_up(self, bound_s: float) -> None:
        """Returns once everything was read that was there at the start; begin work only then.

        Raises:
            LogError: It took longer than the bound; a cancelled request might run.
        """
        try:
            async with asyncio.timeout(bound_s):
                await self._reader.caught_up.wait()
        except TimeoutError:
            raise LogError(f"commands could not be read to their end in {bound_s:g} s") from None
