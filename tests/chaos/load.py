"""Publishes requests at a steady rate, and writes down each one: no code of penstock's.

`python load.py --bootstrap B --topic T --out F --seed N --rate R`; SIGTERM ends it in order.

Each request is JSON with an idempotency key of its own; most have an ordering key. A few are
published a second time under the same keys, as a client does that lost its answer. Lines of the
history: `sent` (before the client library has it), `stored` (acknowledged, where it stands) and
`refused` (the library gave up: it may stand on the log or not).
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from confluent_kafka import KafkaError, Message, Producer

TENANTS = ("north", "south", "east", "west", "centre")
KEYS = 200
KEYED = 0.8
REPEATED = 0.02
URGENT = 0.05
WORDS = ("weir", "gate", "race", "head", "spill", "lock", "silt", "flume")


@dataclass(frozen=True)
class Request:
    """What is published: the record's key, and its value."""

    id: str
    tenant: str
    key: str | None
    value: bytes


def draw_request(draw: random.Random, number: int, run: str) -> Request:
    """Draws a request; the same draws and number give the same one."""
    id_ = f"{run}-{number:07}"
    number_of_key = draw.randrange(KEYS)
    key = f"order-{number_of_key:03}" if draw.random() < KEYED else None
    # An ordering key is one tenant's: whether it binds several at once is not asked here.
    tenant = draw.choice(TENANTS) if key is None else TENANTS[number_of_key % len(TENANTS)]
    body: dict[str, Any] = {
        "prompt": " ".join(draw.choices(WORDS, k=draw.randint(3, 12))),
        "sampling": {"max_tokens": draw.randint(1, 16)},
        "idempotency_key": id_,
        "tenant": tenant,
        "labels": {"chaos": id_},
        "timeout": "1800s",
    }
    if draw.random() < URGENT:
        body["priority"] = draw.choice((-10, 10))
    return Request(id_, tenant, key, json.dumps(body).encode())


class Load:
    """Publishes through librdkafka, whose idempotent producer keeps the order of a partition."""

    def __init__(self, bootstrap: str, topic: str, out: TextIO) -> None:
        self._topic = topic
        self._out = out
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "enable.idempotence": True,
                "acks": "all",
                "linger.ms": 5,
                "partitioner": "murmur2_random",
                "message.timeout.ms": 300_000,
                "log_level": 2,
            }
        )

    def publish(self, request: Request, *, repeat: bool) -> None:
        """Hands a request to the library; waits where its queue is full."""
        self._write(
            event="sent",
            id=request.id,
            tenant=request.tenant,
            key=request.key,
            repeat=repeat,
        )

        def stored(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                self._write(event="refused", id=request.id, error=str(error))
            else:
                self._write(
                    event="stored",
                    id=request.id,
                    partition=message.partition(),
                    offset=message.offset(),
                )

        while True:
            try:
                self._producer.produce(
                    self._topic,
                    key=request.key,
                    value=request.value,
                    headers=[("content-type", b"application/json")],
                    on_delivery=stored,
                )
                return
            except BufferError:
                self._producer.poll(0.1)

    def wait(self, seconds: float) -> None:
        """Takes acknowledgements for a while."""
        self._producer.poll(max(0.0, seconds))

    def finish(self) -> None:
        """Waits for every acknowledgement."""
        self._producer.flush(300)
        self._out.flush()

    def _write(self, **line: object) -> None:
        self._out.write(json.dumps({"at": time.time(), **line}) + "\n")


def main() -> None:
    """Runs until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--run", required=True, help="begins every idempotency key")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True, help="requests per second")
    options = parser.parse_args()
    ended: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda got, _: ended.append(got))
    draw = random.Random(options.seed)
    with options.out.open("a", buffering=1) as out:
        load = Load(options.bootstrap, options.topic, out)
        recent: deque[Request] = deque(maxlen=100)
        number = 0
        due = time.monotonic()
        while not ended:
            if recent and draw.random() < REPEATED:
                load.publish(draw.choice(recent), repeat=True)
            else:
                number += 1
                request = draw_request(draw, number, options.run)
                load.publish(request, repeat=False)
                if request.key is not None:  # a repeat without a key may reach another partition
                    recent.append(request)
            due += draw.expovariate(options.rate)
            load.wait(0)
            while not ended and (left := due - time.monotonic()) > 0:
                load.wait(min(left, 0.2))
        load.finish()


if __name__ == "__main__":
    main()
