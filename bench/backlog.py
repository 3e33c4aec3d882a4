"""A backlog: many records that become visible at one instant, and the instant they are done.

They are written in one transaction, whose commit starts the clock: the service under test is
warm, and finds all of it at once. The clock stops when the group has committed past the last one
in every partition. Nothing of the client runs in between but a question every 20 ms.
"""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable

from confluent_kafka import (
    Consumer,
    ConsumerGroupTopicPartitions,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient
from records import Made

__all__ = ["Backlog", "count_answers", "end_offsets"]

POLL_S = 0.02
SETTLE_S = 2.0


class Backlog:
    """Records written and not yet visible.

    Args:
        bootstrap: Kafka's bootstrap servers.
        topic: Where they go, by its full name.
        made: The records.
    """

    def __init__(self, bootstrap: str, topic: str, made: Iterable[Made]) -> None:
        self._bootstrap = bootstrap
        self._topic = topic
        self.ends: dict[int, int] = {}  # the last record's offset in each partition
        self.count = 0
        self._failed: list[object] = []
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "transactional.id": f"bench-{uuid.uuid4().hex}",
                "transaction.timeout.ms": 600_000,
                "linger.ms": 20,
                "partitioner": "murmur2_random",
                "queue.buffering.max.messages": 1_000_000,
            }
        )
        self._producer.init_transactions(30)
        self._producer.begin_transaction()
        for key, value, headers in made:
            while True:
                try:
                    self._producer.produce(
                        topic, value, key, headers=headers, on_delivery=self._delivered
                    )
                    break
                except BufferError:
                    self._producer.poll(0.1)
            self.count += 1
            if not self.count % 1000:
                self._producer.poll(0)
        self._producer.flush(120)
        if self._failed or (sum(self.ends.values()) == 0 and self.count > 1):
            raise RuntimeError(f"the backlog could not be written: {self._failed[:1]}")

    def _delivered(self, error: object, message: object) -> None:
        if error is not None:
            self._failed.append(error)
            return
        partition, offset = message.partition(), message.offset()  # type: ignore[attr-defined]
        self.ends[partition] = max(offset, self.ends.get(partition, 0))

    def release(self) -> float:
        """Makes the records visible; returns when, on `time.monotonic`."""
        started = time.monotonic()
        self._producer.commit_transaction(60)
        return started

    def wait_done(
        self, group: str, timeout_s: float, *, meanwhile: Callable[[], None] = lambda: None
    ) -> float:
        """Returns when a group had committed past every record, on `time.monotonic`."""
        return wait_committed(
            self._bootstrap, group, self._topic, self.ends, timeout_s, meanwhile=meanwhile
        )


def wait_committed(
    bootstrap: str,
    group: str,
    topic: str,
    ends: dict[int, int],
    timeout_s: float,
    *,
    meanwhile: Callable[[], None] = lambda: None,
) -> float:
    """Returns when a group had committed past these offsets, on `time.monotonic`."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    wanted = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, p) for p in ends])
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            found = admin.list_consumer_group_offsets([wanted])[group].result(10)
            at = time.monotonic()
            if all(tp.offset > ends[tp.partition] for tp in found.topic_partitions):
                return at
        except KafkaException:
            pass  # nothing committed yet
        meanwhile()
        time.sleep(POLL_S)
    raise TimeoutError(f"{group} has not committed past {topic} within {timeout_s:g} s")


def end_offsets(bootstrap: str, topic: str) -> dict[int, int]:
    """Where a topic ends, by partition."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "bench-ends"})
    try:
        partitions = consumer.list_topics(topic, 10).topics[topic].partitions
        return {
            p: consumer.get_watermark_offsets(TopicPartition(topic, p), 10)[1] for p in partitions
        }
    finally:
        consumer.close()


def count_answers(bootstrap: str, topic: str, since: dict[int, int], ends: int) -> Counter[str]:
    """Committed records of a topic since offsets, by event id; stops at `ends` of them."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": f"bench-{uuid.uuid4().hex}",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "fetch.min.bytes": 1,
        }
    )
    try:
        consumer.assign([TopicPartition(topic, p, o) for p, o in since.items()])
        seen: Counter[str] = Counter()
        quiet_until = time.monotonic() + SETTLE_S
        while time.monotonic() < quiet_until:
            messages = consumer.consume(1000, 0.2)
            for message in messages:
                if message.error() is None:
                    seen[dict(message.headers())["ce_id"].decode()] += 1
            if messages:
                quiet_until = time.monotonic() + SETTLE_S
            if sum(seen.values()) >= ends:
                quiet_until = min(quiet_until, time.monotonic() + 0.3)
        return seen
    finally:
        consumer.close()
