"""What a pump makes of the measures on `control`: floors for scaling, replicas to start anew.

Every pump does the same. It tells the directory what is in force each second, so that nothing has
to be kept; and where a restart names no replica, it writes the restart again with the slowest one's
name. Should several do so, the first record counts for all: which one is restarted, and that it is
only one, is on the log.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Callable, Mapping
from typing import Protocol

from penstock.kafka.ports import LogError, Publisher
from penstock.measures import Kind, Measure, Measures, measure_record
from penstock.records import Record
from penstock.telemetry import logger
from penstock_inference.scaling.directory import Restart, Wishes

__all__ = ["Steward"]

log = logger(__name__)

SOURCE = "inference"
# What was written is read back within this time; else it is written again.
READ_BACK_S = 10.0


class Chooser(Protocol):
    """Who knows the engine replicas."""

    async def slowest(self, model: str) -> str:
        """The replica of a base model to start anew; empty where none may be now."""
        ...


class Steward:
    """One pump's.

    Args:
        chooser: Knows the engine replicas.
        publisher: Writes to the log.
        control: The full name of `control`.
        most: By base model, the most replicas that it may have.
        now: The clock, UTC.
    """

    def __init__(
        self,
        chooser: Chooser,
        publisher: Publisher,
        control: str,
        most: Mapping[str, int],
        now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
    ) -> None:
        self._measures = Measures()
        self._chooser = chooser
        self._publisher = publisher
        self._control = control
        self._most = most
        self._now = now
        # When a choice was written, by the measure.
        self._written: dict[str, dt.datetime] = {}

    def take(self, record: Record) -> None:
        """Takes a record of `control` in."""
        if not self._measures.take(record):
            return
        now = self._now()
        for measure in self._measures.in_force(now):
            if measure.kind is not Kind.SHED and measure.model in self._most:
                self._say(measure)

    def wishes(self) -> Wishes:
        """What is in force now."""
        now = self._now()
        floors = {
            model: floor
            for model, floor in self._measures.floors(now).items()
            if model in self._most
        }
        restarts = tuple(
            Restart(each.measure_id, each.model, each.replica)
            for each in self._measures.in_force(now, Kind.RESTART)
            if each.replica and each.model in self._most
        )
        return Wishes(floors, restarts)

    async def choose(self) -> None:
        """Names a replica for each restart that names none, where one may go now."""
        now = self._now()
        open_ = [
            each
            for each in self._measures.in_force(now, Kind.RESTART)
            if not each.replica and each.model in self._most
        ]
        self._written = {
            name: at
            for name, at in self._written.items()
            if (now - at).total_seconds() < READ_BACK_S
        }
        for measure in open_:
            if measure.measure_id in self._written:
                continue
            replica = await self._chooser.slowest(measure.model)
            if not replica:
                continue
            chosen = dataclasses.replace(measure, replica=replica)
            try:
                await self._publisher.publish([measure_record(chosen, self._control, SOURCE)])
            except LogError as error:
                log.warning("a choice could not be written", error=repr(error))
                return
            self._written[measure.measure_id] = now

    def _say(self, measure: Measure) -> None:
        most = self._most[measure.model]
        if measure.kind is Kind.SCALE and measure.replicas > most:
            log.warning(
                "a floor is above the model's maximum, which holds",
                model=measure.model,
                replicas=measure.replicas,
                maximum=most,
            )
        log.info(
            "measure",
            kind=str(measure.kind),
            model=measure.model,
            measure=measure.measure_id,
            replicas=measure.replicas,
            replica=measure.replica,
            until=measure.until.isoformat(),
            requested_by=measure.requested_by,
        )
