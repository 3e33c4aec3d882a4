"""Writes down what stands on topics, read committed: no code of penstock's, no consumer group.

`python record.py --bootstrap B --prefix P --topics a,b --out F` follows until SIGTERM; with
`--to-end` it reads from the beginning to what is readable now, says in `--ends` where each
partition ends and how far committed reading comes, and ends.
"""

from __future__ import annotations

import argparse
import base64
import json
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    IsolationLevel,
    KafkaError,
    Message,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec

SETTLE_S = 30.0  # how long a dead owner's transaction may hold readers before it counts as stuck


def line_of(message: Message, prefix: str) -> dict[str, object]:
    """A record as a line: JSON as text, anything else in base64."""
    headers = dict(message.headers() or [])
    value = message.value() or b""
    line: dict[str, object] = {
        "at": time.time(),
        "topic": message.topic().removeprefix(f"{prefix}."),
        "partition": message.partition(),
        "offset": message.offset(),
        "key": None if message.key() is None else message.key().decode("utf-8", "replace"),
    }
    if b"json" in headers.get("content-type", b""):
        return {**line, "json": value.decode("utf-8", "replace")}
    return {**line, "base64": base64.b64encode(value).decode()}


def partitions_of(bootstrap: str, topics: Sequence[str]) -> list[TopicPartition]:
    """Every partition of the topics."""
    found = AdminClient({"bootstrap.servers": bootstrap, "log_level": 2}).list_topics(timeout=30)
    return [
        TopicPartition(topic, partition, OFFSET_BEGINNING)
        for topic in topics
        for partition in sorted(found.topics[topic].partitions)
    ]


def ends_of(
    bootstrap: str, partitions: Sequence[TopicPartition]
) -> dict[tuple[str, int], tuple[int, int]]:
    """Where each partition ends, and how far committed reading comes, waiting for equality."""
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 2})
    deadline = time.monotonic() + SETTLE_S
    while True:
        found: dict[tuple[str, int], list[int]] = {}
        for isolation in (IsolationLevel.READ_UNCOMMITTED, IsolationLevel.READ_COMMITTED):
            asked = {TopicPartition(p.topic, p.partition): OffsetSpec.latest() for p in partitions}
            answers = admin.list_offsets(asked, isolation_level=isolation, request_timeout=30)
            for partition, answer in answers.items():
                key = (partition.topic, partition.partition)
                found.setdefault(key, []).append(answer.result().offset)
        ends = {key: (values[0], values[1]) for key, values in found.items()}
        if time.monotonic() > deadline or all(end == stable for end, stable in ends.values()):
            return ends
        time.sleep(0.5)


class Recorder:
    """Reads assigned partitions, each record once, and writes lines."""

    def __init__(self, bootstrap: str, prefix: str, out: TextIO) -> None:
        self._prefix = prefix
        self._out = out
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": "chaos-recorder",  # asked for by the library; nothing is committed
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
                # A log that was cut is read again: the checker knows a record by where it stands.
                "auto.offset.reset": "earliest",
                "fetch.wait.max.ms": 100,
                "reconnect.backoff.max.ms": 500,
                "topic.metadata.refresh.interval.ms": 5_000,
                "log_level": 2,
            }
        )

    def assign(self, partitions: Sequence[TopicPartition]) -> None:
        """Begins at the first record of each partition."""
        self._consumer.assign(list(partitions))

    def take(self, timeout_s: float) -> list[tuple[str, int]]:
        """Writes what comes; returns the partitions that were read to their end."""
        ended = []
        for message in self._consumer.consume(500, timeout_s):
            error = message.error()
            if error is None:
                self._out.write(json.dumps(line_of(message, self._prefix)) + "\n")
            elif error.code() == KafkaError._PARTITION_EOF:
                ended.append((message.topic(), message.partition()))
            elif error.fatal():
                raise SystemExit(f"the recorder cannot go on: {error}")
        self._out.flush()
        return ended

    def close(self) -> None:
        """Ends reading."""
        self._consumer.close()


def main() -> None:
    """Runs until SIGTERM, or to the end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--prefix", required=True)
    parser.add_argument("--topics", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--to-end", action="store_true")
    parser.add_argument("--ends", type=Path)
    options = parser.parse_args()
    stopped: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda got, _: stopped.append(got))
    topics = [f"{options.prefix}.{name}" for name in options.topics.split(",")]
    partitions = partitions_of(options.bootstrap, topics)
    with options.out.open("a") as out:
        recorder = Recorder(options.bootstrap, options.prefix, out)
        recorder.assign(partitions)
        if not options.to_end:
            while not stopped:
                recorder.take(0.1)
            recorder.close()
            return
        ends = ends_of(options.bootstrap, partitions)
        with options.ends.open("w") as file:
            for (topic, partition), (end, stable) in sorted(ends.items()):
                name = topic.removeprefix(f"{options.prefix}.")
                line = {"topic": name, "partition": partition, "end": end, "stable": stable}
                file.write(json.dumps(line) + "\n")
        left = set(ends)
        while left and not stopped:
            left -= set(recorder.take(1.0))
        recorder.close()


if __name__ == "__main__":
    main()
