"""CPU time that the engine's end of the stream takes per request, without gRPC, Kafka or a model.

Usage: python bench/engine_overhead.py [--requests 50000] [--in-flight 512] [--stream]

A scripted engine behind the servicer, fed with batches of work as a pump sends them, in one
process. What it prints bounds the requests per second that one engine process can take.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from penstock.v1 import admitted_pb2, engine_service_pb2
from penstock_inference.engines.scripted import ScriptedEngine
from penstock_inference.streams.engine_servicer import EngineServicer

BATCH = 32


class Context:
    """What the servicer needs of gRPC's context."""

    async def send_initial_metadata(self, metadata: Any) -> None:
        """Nobody reads it."""


def item(number: int, *, stream: bool) -> engine_service_pb2.WorkItem:
    """Work as the pump sends it."""
    admitted = admitted_pb2.AdmittedRequest(
        request_id=f"request-{number}", variant="v1", stream=stream
    )
    request = admitted.request
    request.tenant = "acme"
    request.messages.add(role="user", content="Hello, I was charged twice for my subscription.")
    request.sampling.max_tokens = 64
    request.sampling.seed = number
    return engine_service_pb2.WorkItem(
        request=admitted, attempt=1, work_id=f"{admitted.request_id}/{number}"
    )


async def measure(requests: int, in_flight: int, *, stream: bool) -> tuple[float, float]:
    """Microseconds of CPU per request, and requests per second."""
    engine = ScriptedEngine(first_token_s=0.05, token_s=0, max_tokens=16)
    servicer = EngineServicer(engine)
    messages = []
    for start in range(0, requests, BATCH):
        items = [item(n, stream=stream) for n in range(start, min(start + BATCH, requests))]
        messages.append(engine_service_pb2.WorkRequest(start=items).SerializeToString())
    slots = asyncio.Semaphore(in_flight // BATCH)

    async def incoming() -> AsyncIterator[engine_service_pb2.WorkRequest]:
        for message in messages:
            await slots.acquire()
            yield engine_service_pb2.WorkRequest.FromString(message)
        await asyncio.Event().wait()

    done = 0
    began, cpu = time.monotonic(), time.process_time()
    async for response in servicer.Work(incoming(), Context()):  # type: ignore[arg-type]
        response.SerializeToString()
        before = done
        done += sum(event.HasField("result") for event in response.events)
        for _ in range(done // BATCH - before // BATCH):
            slots.release()
        if done == requests:
            break
    return (time.process_time() - cpu) / requests * 1e6, requests / (time.monotonic() - began)


def main() -> None:
    """Reads the command line and prints one line per round."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=50_000)
    parser.add_argument("--in-flight", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--stream", action="store_true")
    options = parser.parse_args()
    for _ in range(options.rounds):
        cost_us, rate = asyncio.run(
            measure(options.requests, options.in_flight, stream=options.stream)
        )
        print(f"{cost_us:6.1f} us of CPU per request, {rate:8.0f} requests/s")


if __name__ == "__main__":
    main()
