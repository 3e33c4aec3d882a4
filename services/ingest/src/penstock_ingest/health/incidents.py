"""Alerts about models that do not answer: opened, repeated while it lasts, resolved."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Callable

from penstock.codec import JSON, encode
from penstock.kafka.ports import LogError, Publisher
from penstock.telemetry import logger
from penstock.topics import topic_of
from penstock.v1 import alert_pb2
from penstock_ingest.admission.pipeline import timestamp_of
from penstock_ingest.desk import SOURCE
from penstock_ingest.health.board import Board

__all__ = ["ModelIncidents"]

log = logger(__name__)

RUNBOOK = "docs/runbooks/readiness.md"
REPEAT_S = 300.0
_PREFIX = f"{SOURCE}/model-not-ready/"


@dataclasses.dataclass(slots=True)
class _Open:
    """An incident that people were told of."""

    opened_at: dt.datetime
    told_s: float
    updates: int = 0


class ModelIncidents:
    """Tells people when no variant of a model answers. At least once: a repeat has the same id.

    One incident per model, whichever instances notice it. The first that gets an answer again
    resolves it; one that still gets none says so again within five minutes.

    Args:
        publisher: Writes the alerts.
        topic_prefix: What stands before the dot in topics' names.
        ordinal: This instance's place: whoever takes it next goes on with its incidents.
        clock: The present, UTC.
    """

    def __init__(
        self,
        publisher: Publisher,
        *,
        topic_prefix: str,
        ordinal: int,
        clock: Callable[[], dt.datetime],
    ) -> None:
        self._publisher = publisher
        self._topic = topic_of("alerts").full_name(topic_prefix)
        self._instance = f"{SOURCE}-{ordinal}"
        self._clock = clock
        self._open: dict[str, _Open] = {}

    def read(self, alert: alert_pb2.Alert) -> None:
        """Takes in what this instance wrote, from the log: in another life, or a moment ago."""
        if not alert.incident_id.startswith(_PREFIX) or alert.labels["instance"] != self._instance:
            return
        model = alert.labels["model"]
        if alert.state == alert_pb2.ALERT_STATE_RESOLVED:
            self._open.pop(model, None)
        else:
            known = self._open.setdefault(model, _Open(alert.opened_at.ToDatetime(dt.UTC), 0.0))
            if alert.state == alert_pb2.ALERT_STATE_UPDATED:
                known.updates = max(known.updates, int(alert.alert_id.rpartition("/")[2]))

    async def tell(self, board: Board, now_s: float) -> None:
        """Writes what changed; what could not be written is written at the next look."""
        try:
            await self._resolve(board)
            for model in board.unready(now_s):
                await self._open_or_repeat(model, board.models[model].errors, now_s)
        except LogError as error:
            log.warning("an alert could not be written", error=str(error))

    async def _open_or_repeat(self, model: str, errors: str, now_s: float) -> None:
        known = self._open.get(model)
        if known is None:
            known = _Open(self._clock(), now_s)
            await self._write(model, known, alert_pb2.ALERT_STATE_OPENED, errors)
            self._open[model] = known
            log.error("a model does not answer", model=model, errors=errors)
        elif now_s - known.told_s >= REPEAT_S:
            known.updates += 1
            await self._write(model, known, alert_pb2.ALERT_STATE_UPDATED, errors)
            known.told_s = now_s

    async def _resolve(self, board: Board) -> None:
        for model, known in list(self._open.items()):
            health = board.models.get(model)
            if health is not None and not health.ready:
                continue
            said = "It answers again." if health is not None else "It is not routed any more."
            await self._write(model, known, alert_pb2.ALERT_STATE_RESOLVED, said)
            # What was written may have been read already.
            self._open.pop(model, None)
            log.info("a model's incident is over", model=model, reason=said)

    async def _write(
        self, model: str, known: _Open, state: alert_pb2.AlertState.ValueType, summary: str
    ) -> None:
        incident = _PREFIX + model
        word = alert_pb2.AlertState.Name(state).removeprefix("ALERT_STATE_").lower()
        opened_us = round(known.opened_at.timestamp() * 1_000_000)
        number = f"/{known.updates}" if state == alert_pb2.ALERT_STATE_UPDATED else ""
        alert = alert_pb2.Alert(
            alert_id=f"{incident}/{self._instance}/{opened_us}/{word}{number}",
            incident_id=incident,
            state=state,
            severity=alert_pb2.SEVERITY_PAGE,
            title=f"Model {model} does not answer",
            summary=summary,
            service=SOURCE,
            labels={"model": model, "instance": self._instance},
            runbook=RUNBOOK,
            opened_at=timestamp_of(known.opened_at),
            updated_at=timestamp_of(self._clock()),
        )
        record = encode(
            alert,
            topic=self._topic,
            key=incident,
            source=SOURCE,
            event_id=alert.alert_id,
            encoding=JSON,
        )
        await self._publisher.publish([record])
