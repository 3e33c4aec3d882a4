"""penstock in the throughput benchmark: requests published to Kafka, their responses read."""

from __future__ import annotations

import contextlib
import itertools
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from backlog import Backlog, end_offsets
from confluent_kafka import Consumer, TopicPartition
from processes import parts_of_stack, spent, usage_of
from workload import KV_CACHE_GIB, MAX_TOKENS, NAME, SLOTS, dtype, tickets

from penstock.v1 import request_pb2, response_pb2
from penstock_native.stack import Stack

__all__ = ["ROUND_S", "Figures", "Round", "kafka"]

# The broker compiles itself, at a third of a core, until it has seen some tens of thousands.
WARM_REQUESTS = 4_000
ROUND_S = 600.0

Figures = dict[str, Any]  # seconds, tokens, shortest; of penstock cpu_ms as well
Round = Callable[[int], Figures]


@contextlib.contextmanager
def kafka(model: Path, _: Path) -> Iterator[Round]:
    """(D) penstock, Kafka to Kafka: requests published, their responses read."""
    env = {
        "PENSTOCK_INFERENCE_MODEL": str(model),
        "PENSTOCK_INFERENCE_DTYPE": dtype(),
        "PENSTOCK_INFERENCE_KV_CACHE_GIB": str(KV_CACHE_GIB),
        "PENSTOCK_INFERENCE_MAX_RUNNING": str(SLOTS),
        "PENSTOCK_INFERENCE_CACHE_MIB": "0",
        "PENSTOCK_INGEST_PROBE_INTERVAL_S": "0",
        "VLLM_LOGGING_LEVEL": "WARNING",
    }
    with Stack.ephemeral(("kafka", "ingest", "inference"), env) as stack:
        _through_kafka(stack, WARM_REQUESTS, max_tokens=1)
        yield lambda count: _metered(stack, count)


def _metered(stack: Stack, count: int) -> Figures:
    """A round, with the CPU time that each part of the stack took per request."""
    parts = parts_of_stack(stack.state_dir)
    before = usage_of(parts)
    figures = _through_kafka(stack, count)
    used = spent(before, usage_of(parts))
    return {**figures, "cpu_ms": {part: 1000 * s / count for part, s in sorted(used.items())}}


def _through_kafka(stack: Stack, count: int, max_tokens: int = MAX_TOKENS) -> Figures:
    bootstrap, prefix = stack.env["PENSTOCK_KAFKA_BOOTSTRAP"], stack.env["PENSTOCK_TOPIC_PREFIX"]
    run = uuid.uuid4().hex[:8]
    since = end_offsets(bootstrap, f"{prefix}.responses")
    backlog = Backlog(bootstrap, f"{prefix}.requests", _requests(run, count, max_tokens))
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": f"bench-{run}",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
        }
    )
    consumer.assign([TopicPartition(f"{prefix}.responses", p, o) for p, o in since.items()])
    consumer.poll(0.5)
    tokens: dict[str, int] = {}
    started = backlog.release()
    while len(tokens) < count:
        if time.monotonic() - started > ROUND_S:
            raise RuntimeError(f"{len(tokens)} of {count} were answered")
        message = consumer.poll(0.5)
        if message is None or message.error() is not None:
            continue
        response = response_pb2.GenerateResponse.FromString(message.value())
        if response.outcome != response_pb2.OUTCOME_ANSWERED or response.cached:
            raise RuntimeError(f"not answered by the engine: {response}")
        if tokens.setdefault(response.request_id, response.usage.completion_tokens) == 0:
            raise RuntimeError(f"an answer without tokens: {response}")
    seconds = time.monotonic() - started
    consumer.close()
    return {
        "seconds": seconds,
        "tokens": sum(tokens.values()),
        "shortest": min(tokens.values()),
    }


def _requests(
    run: str, count: int, max_tokens: int
) -> Iterator[tuple[bytes, bytes, list[tuple[str, bytes]]]]:
    texts = itertools.cycle(tickets(count))
    for number, text in enumerate(itertools.islice(texts, count)):
        name = f"{run}-{number}"
        request = request_pb2.GenerateRequest(model=NAME, idempotency_key=name, no_cache=True)
        request.messages.add(role="user", content=text)
        request.sampling.temperature = 0
        request.sampling.max_tokens = max_tokens
        headers = [("content-type", b"application/protobuf")]
        yield name.encode(), request.SerializeToString(), headers
