"""An open-loop client of the gRPC door, in a process of its own; see `openloop.py`.

Usage: python bench/doorstep.py ADDRESS RATE SECONDS

Prints the milliseconds from each intended instant to the first text and to the end, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import uuid
from typing import Any

import grpc
from records import PROMPT

from penstock.v1 import inference_service_pb2_grpc, request_pb2

LEAD_S = 0.5
# The loop's timers are a millisecond late: the rest is waited out turn by turn.
TIMER_S = 0.0015


async def measure(address: str, rate: float, seconds: float) -> dict[str, Any]:
    """One run."""
    run, count = uuid.uuid4().hex[:8], max(1, round(rate * seconds))
    first: list[float] = []
    last: list[float] = []
    async with grpc.aio.insecure_channel(address) as channel:
        stub = inference_service_pb2_grpc.InferenceStub(channel)

        async def one(number: int, due: float) -> None:
            await _until(due)
            text = False
            async for event in stub.GenerateStream(_request(f"{run}-{number}"), timeout=60):
                if event.HasField("chunk") and not text:
                    text = True
                    first.append(1000 * (time.perf_counter() - due))
            last.append(1000 * (time.perf_counter() - due))

        await one(-1, time.perf_counter())  # connects
        first.clear()
        last.clear()
        cpu, started = time.process_time(), time.perf_counter() + LEAD_S
        await asyncio.gather(*(one(n, started + n / rate) for n in range(count)))
        cpu = time.process_time() - cpu
        elapsed = time.perf_counter() - started
    return {
        "rate": rate,
        "requests": count,
        "first_ms": first,
        "last_ms": last,
        "client_cpu_share": cpu / elapsed,
    }


async def _until(due: float) -> None:
    while True:
        left = due - time.perf_counter()
        if left <= 0:
            return
        await asyncio.sleep(max(0.0, left - TIMER_S))


def _request(name: str) -> request_pb2.GenerateRequest:
    request = request_pb2.GenerateRequest(model="triage", tenant="bench", no_cache=True)
    request.messages.add(role="user", content=PROMPT)
    request.sampling.max_tokens = 64
    request.sampling.temperature = 1.0
    request.labels["run"] = name
    return request


if __name__ == "__main__":
    print(json.dumps(asyncio.run(measure(sys.argv[1], float(sys.argv[2]), float(sys.argv[3])))))
