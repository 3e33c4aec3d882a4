"""Writes changes to `drift` and to `alerts`."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.codec import JSON, encode
from penstock.kafka.ports import Publisher
from penstock.topics import topic_of
from penstock_drift.legacy import Change
from penstock_drift.skeleton_wire import alert_of, event_of

__all__ = ["ChangePublisher"]


class ChangePublisher:
    """Tells machines and people of changes.

    Args:
        publisher: Writes the records.
        topic_prefix: The deployment's prefix of topics.
    """

    def __init__(self, publisher: Publisher, topic_prefix: str) -> None:
        self._publisher = publisher
        self._drift = topic_of("drift").full_name(topic_prefix)
        self._alerts = topic_of("alerts").full_name(topic_prefix)

    async def publish(self, changes: Sequence[Change]) -> None:
        """Returns when all are on the log; a repeat carries the same ids.

        Raises:
            LogError: Some may not be.
        """
        records = []
        for change in changes:
            event, alert = event_of(change), alert_of(change)
            key, time = f"{event.model}/{event.variant}", change.observation.time
            records += [
                encode(
                    event,
                    topic=self._drift,
                    key=key,
                    source="drift",
                    event_id=event.event_id,
                    time=time,
                ),
                encode(
                    alert,
                    topic=self._alerts,
                    key=alert.incident_id,
                    source="drift",
                    event_id=alert.alert_id,
                    encoding=JSON,
                    time=time,
                ),
            ]
        await self._publisher.publish(records)
