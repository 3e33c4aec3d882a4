"""An open-loop client of the log, in a process of its own: a request at every intended instant.

Usage: python bench/openloop.py BOOTSTRAP PREFIX TOPIC RATE SECONDS LINGER_MS

librdkafka carries it, so that it takes little of the cores that it shares with what it measures.
Latency counts from the instant at which a request should have been sent (so a client that falls
behind hides nothing) until its committed response is here. Prints JSON.
"""

from __future__ import annotations

import json
import sys
import threading
import time
import uuid
from typing import Any

from backlog import end_offsets
from confluent_kafka import Consumer, Producer, TopicPartition
from records import Shape, admitted_records, request_records

from penstock.v1 import response_pb2

GRACE_S = 30.0
LEAD_IN_S = 1.0


class Answers(threading.Thread):
    """Reads responses and notes when each came.

    Attributes:
        at: When, by the request's number, on `time.perf_counter`.
    """

    def __init__(self, bootstrap: str, topic: str, run: str) -> None:
        super().__init__(daemon=True)
        self.at: dict[int, float] = {}
        self.refused = 0
        self.repeated = 0
        self.ended = threading.Event()
        self._run = run
        since = end_offsets(bootstrap, topic)
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": f"bench-{run}",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "fetch.wait.max.ms": 500,
                "fetch.min.bytes": 1,
                "fetch.queue.backoff.ms": 1,
            }
        )
        self._consumer.assign([TopicPartition(topic, p, o) for p, o in since.items()])
        self._consumer.poll(0.5)  # its connections are made before the first request

    def run(self) -> None:
        """Reads until `ended` is set."""
        while not self.ended.is_set():
            # `consume` would wait for its count or its timeout.
            message = self._consumer.poll(0.05)
            if message is not None and message.error() is None:
                self._take(message.value(), time.perf_counter())
        self._consumer.close()

    def _take(self, value: bytes, at: float) -> None:
        response = response_pb2.GenerateResponse.FromString(value)
        run, _, number = response.idempotency_key.partition("-")
        if run != self._run:
            return
        if response.outcome != response_pb2.OUTCOME_ANSWERED:
            self.refused += 1
        self.repeated += int(number) in self.at
        self.at.setdefault(int(number), at)


def measure(
    bootstrap: str, prefix: str, topic: str, rate: float, seconds: float, linger_ms: float
) -> dict[str, Any]:
    """One run."""
    run = uuid.uuid4().hex[:8]
    # The first second is the client's: its connections, its producer id. It is not counted.
    lead_in = round(rate * LEAD_IN_S)
    count = lead_in + max(1, round(rate * seconds))
    make = admitted_records if topic == "admitted" else request_records
    made = list(make(run, count, Shape()))
    answers = Answers(bootstrap, f"{prefix}.responses", run)
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "enable.idempotence": True,
            "linger.ms": linger_ms,
            "partitioner": "murmur2_random",
        }
    )
    full = f"{prefix}.{topic}"
    producer.list_topics(full, 10)
    answers.start()
    cpu = time.process_time()
    started = time.perf_counter() + 0.2
    late = 0.0
    for number, (key, value, headers) in enumerate(made):
        due = started + number / rate
        while (wait := due - time.perf_counter()) > 0:
            producer.poll(0)
            time.sleep(wait)
        late = max(late, -wait)
        producer.produce(full, value, key, headers=headers)
        producer.poll(0)
    sent = time.perf_counter()
    producer.flush(GRACE_S)
    deadline = time.perf_counter() + GRACE_S
    while len(answers.at) < count and time.perf_counter() < deadline:
        time.sleep(0.05)
    cpu = time.process_time() - cpu
    elapsed = time.perf_counter() - started
    answers.ended.set()
    answers.join(10)
    return {
        "rate": rate,
        "requests": count,
        "answered": len(answers.at),
        # While requests came: what is left is answered faster once the client is done.
        "answers_per_s": sum(at <= sent for at in answers.at.values()) / (sent - started),
        "refused": answers.refused,
        "repeated": answers.repeated,
        "latencies_ms": [
            round(1000 * (at - started - number / rate), 3)
            for number, at in sorted(answers.at.items())
            if number >= lead_in
        ],
        "latest_send_ms": 1000 * late,
        "client_cpu_share": cpu / elapsed,
    }


def main() -> None:
    """Reads the command line, prints the figures."""
    bootstrap, prefix, topic, rate, seconds, linger_ms = sys.argv[1:]
    found = measure(bootstrap, prefix, topic, float(rate), float(seconds), float(linger_ms))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
