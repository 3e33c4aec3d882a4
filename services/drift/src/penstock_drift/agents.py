"""The edge to the log: responses are shown to detectors, and what they find is published.

The detectors live in this process. After a crash, what was not committed is delivered again to
detectors that start empty; a partition that moves is watched on by the new owner's detectors.
Within one process a record is taken once.
"""

from __future__ import annotations

from collections.abc import Sequence

from penstock.records import Record
from penstock.telemetry import logger
from penstock_drift import metrics
from penstock_drift.legacy import Change, Detectors, Noted
from penstock_drift.publisher import ChangePublisher
from penstock_drift.skeleton_wire import observation_of

__all__ = ["ResponseAgent"]

log = logger(__name__)


class ResponseAgent:
    """Shows answered responses to the detectors, in the order of the log.

    Args:
        detectors: Those of this worker.
        publisher: Tells what they find.
    """

    def __init__(self, detectors: Detectors, publisher: ChangePublisher) -> None:
        self._detectors = detectors
        self._publisher = publisher
        self._pending: list[Change] = []
        self._told_of_overflow = False

    async def handle(self, records: Sequence[Record]) -> None:
        """Returns when every change found is on the log; only then the batch may be acknowledged.

        Raises:
            InvalidRequest: A record is no response; no detector saw any of the batch.
            LogError: A change could not be published; the next call publishes it first.
        """
        # All are decoded first, so that a batch with a bad record changes nothing.
        observations = [found for r in records if (found := observation_of(r)) is not None]
        noted = Noted()
        for observation in observations:
            self._detectors.take(observation, noted)
        self._count(noted)
        # Kept until they are out: when the batch comes again, detectors take it for a repeat.
        self._pending.extend(noted.changes)
        if self._pending:
            await self._publisher.publish(self._pending)
            self._pending.clear()

    def _count(self, noted: Noted) -> None:
        for signal, values in noted.taken.items():
            metrics.VALUES.labels(signal).inc(values)
        for signal, values in noted.unusable.items():
            metrics.UNUSABLE.labels(signal).inc(values)
        metrics.OVERFLOW.inc(noted.overflow)
        metrics.DETECTORS.set(len(self._detectors))
        if noted.overflow and not self._told_of_overflow:
            self._told_of_overflow = True
            log.warning(
                "no detector is left for new keys; raise PENSTOCK_DRIFT_MAX_KEYS",
                detectors=len(self._detectors),
            )
        for change in noted.changes:
            metrics.CHANGES.labels(change.key.signal).inc()
            log.warning("change found", event_id=change.event_id, **change.key._asdict())
