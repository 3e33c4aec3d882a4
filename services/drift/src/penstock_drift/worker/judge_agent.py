"""The edge between `evidence` and the judge: records in; events, alerts and state out."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence

from penstock.codec import JSON, decode, encode
from penstock.records import Outgoing, Record
from penstock.telemetry import logger
from penstock.topics import topic_of
from penstock.v1 import drift_pb2
from penstock_drift.findings.events import Event
from penstock_drift.findings.incidents import News
from penstock_drift.findings.wire import alert_to_wire, event_to_wire
from penstock_drift.judge.judge import Judge, Verdicts
from penstock_drift.records.evidence import TickEvidence
from penstock_drift.records.evidence_wire import tick_from_wire
from penstock_drift.signals.declared import Declaration
from penstock_drift.worker import metrics
from penstock_drift.worker.snapshots import judge_records, judge_state
from penstock_drift.worker.state_store import StateStore
from penstock_drift.worker.tenure import Lost, Tenures, by_partition

__all__ = ["JudgeAgent", "verdict_records"]

log = logger(__name__)


class JudgeAgent:
    """Judges what the folds say, on the worker that has the one partition of `evidence`.

    Events, alerts and the judge's state are written in one transaction, and the evidence is
    acknowledged after it: each finding is told once, whatever is killed.

    Args:
        declarations: The signals by name.
        store: Opens the place where the judge's state is kept.
        topic_prefix: What stands before the dot in topics' names.
    """

    def __init__(
        self,
        declarations: Mapping[str, Declaration],
        store: Callable[[], StateStore],
        topic_prefix: str,
    ) -> None:
        self._declarations, self._store = declarations, store
        self._prefix = topic_prefix
        self.tenures: Tenures[Judge] = Tenures(
            topic_of("evidence").full_name(topic_prefix), self._take
        )

    async def handle(self, records: Sequence[Record]) -> None:
        """Returns when all verdicts are on the log; what was seen before does nothing.

        Raises:
            InvalidRequest: One is no evidence; nothing of the batch was judged.
            Unavailable: The state cannot be read now.
            LogError: Verdicts could not be written: the process has to end.
        """
        decoded = {
            partition: [(record.offset, evidence_of(record)) for record in own]
            for partition, own in by_partition(records).items()
        }
        for partition, own in decoded.items():
            try:
                tenure = await self.tenures.of(partition)
                judge, verdicts = tenure.state, Verdicts()
                before_ms = judge.judged_ms
                for offset, evidence in own:
                    found = judge.take(evidence, offset)
                    verdicts.events += found.events
                    verdicts.news += found.news
                if judge.judged_ms > before_ms:
                    snapshot = judge.snapshot()
                    outputs = verdict_records(verdicts, self._declarations, self._prefix)
                    await tenure.keep(judge_records(snapshot), snapshot.resume_offset, outputs)
                    metrics.show_verdicts(judge, verdicts)
            except Lost:
                log.info("the judge went elsewhere")

    async def _take(self, _: int) -> tuple[Judge, StateStore]:
        store = self._store()
        return Judge(self._declarations, *judge_state(await store.take())), store


def evidence_of(record: Record) -> TickEvidence:
    """What a record of `evidence` says.

    Raises:
        InvalidRequest: It is no such record.
    """
    return tick_from_wire(decode(record, drift_pb2.Evidence))


def verdict_records(
    verdicts: Verdicts, declarations: Mapping[str, Declaration], prefix: str
) -> list[Outgoing]:
    """Verdicts as records of `drift` and `alerts`; the same verdicts give the same ones."""
    drift = topic_of("drift").full_name(prefix)
    alerts = topic_of("alerts").full_name(prefix)
    return [
        *(_event_record(event, drift) for event in verdicts.events),
        *(_alert_record(news, declarations, alerts) for news in verdicts.news),
    ]


def _event_record(event: Event, topic: str) -> Outgoing:
    key = event.watch.key
    return encode(
        event_to_wire(event),
        topic=topic,
        key=f"{key.model}/{key.variant}",
        source="drift",
        event_id=event.event_id,
        time=_instant(event.detected_ms),
    )


def _alert_record(news: News, declarations: Mapping[str, Declaration], topic: str) -> Outgoing:
    alert = alert_to_wire(news, declarations)
    return encode(
        alert,
        topic=topic,
        key=alert.incident_id,
        source="drift",
        event_id=alert.alert_id,
        encoding=JSON,
        time=_instant(news.incident.updated_ms),
    )


def _instant(instant_ms: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(instant_ms / 1000, dt.UTC)
