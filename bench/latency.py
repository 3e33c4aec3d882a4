"""What the platform adds to an answer's latency, at open loop, from intended send times.

The scripted engine takes 50 ms; what is beyond is added: Kafka, ingest, the pump, the commits.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from records import Shape
from scripted import FIRST_TOKEN_S, PUMP, WHOLE, Leg, drain, scripted_env

from penstock_native.stack import Stack

__all__ = ["ask_client", "latency", "percentile", "summary"]

SHARES = (0.5, 0.8)
RATES = {"admitted": (100, 1000), "requests": (100,)}
# The broker's JIT compiler takes a third of a core until it has seen this load for a while.
WARM_RATE, WARM_S = 1000.0, 60
# At fixed rates every request is sent at once; at a share of the capacity as a producer of
# Kafka 4 does by default, or the broker would be busy with produce requests of one record.
LINGER_MS = 5.0
# More than is ever answered.
OFFERED = {"admitted": 6000.0, "requests": 4000.0}


def latency(quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """The part `latency`: fixed rates, then shares of what the same client gets through."""
    seconds, repeats = (5, 1) if quick else (30, 3)
    found: dict[str, Any] = {}
    for leg in (PUMP, WHOLE):
        with Stack.ephemeral(leg.services, scripted_env()) as stack:
            drain(stack, leg, 4_000 if quick else 40_000, Shape())
            _run(stack, leg, WARM_RATE, 5 if quick else WARM_S)
            measured = {}
            for rate in RATES[leg.topic]:
                name = f"{rate}/s"
                measured[name] = [_run(stack, leg, rate, seconds) for _ in range(repeats)]
                say(f"{leg.name} at {name}: {_brief(measured[name])}")
            capacity = _capacity(stack, leg, 4_000 if quick else 60_000)
            say(f"{leg.name}: {capacity:,.0f} requests/s are its capacity at open loop")
            for share in SHARES:
                name, rate = f"{share:.0%} of capacity", share * capacity
                measured[name] = [
                    _run(stack, leg, rate, seconds, LINGER_MS) for _ in range(repeats)
                ]
                say(f"{leg.name} at {name}: {_brief(measured[name])}")
            found[leg.topic] = {"capacity": capacity, "runs": measured}
    return found


def _capacity(stack: Stack, leg: Leg, requests: int) -> float:
    """Requests per second when more are sent than can be answered."""
    rate = OFFERED[leg.topic]
    return float(_run(stack, leg, rate, requests / rate, LINGER_MS)["answers_per_s"])


def ask_client(script: str, *arguments: str) -> dict[str, Any]:
    """Runs a client in a process of its own and returns the figures that it prints last.

    Raises:
        RuntimeError: It failed.
    """
    ended = subprocess.run(
        [sys.executable, str(Path(__file__).with_name(script)), *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode != 0:
        raise RuntimeError(f"the client failed: {ended.stderr[-2000:]}")
    figures: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return figures


def summary(latencies_ms: Sequence[float], engine_ms: float) -> dict[str, float]:
    """Added p50, p99 and the most, in ms."""
    added = sorted(each - engine_ms for each in latencies_ms)
    return {
        "added_p50_ms": statistics.median(added),
        "added_p99_ms": percentile(added, 0.99),
        "added_max_ms": added[-1],
    }


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that so large a share does not exceed."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _run(
    stack: Stack, leg: Leg, rate: float, seconds: float, linger_ms: float = 0.0
) -> dict[str, Any]:
    figures = ask_client(
        "openloop.py",
        stack.env["PENSTOCK_KAFKA_BOOTSTRAP"],
        stack.env["PENSTOCK_TOPIC_PREFIX"],
        leg.topic,
        str(rate),
        str(seconds),
        str(linger_ms),
    )
    latencies = figures.pop("latencies_ms")
    if figures["answered"] != figures["requests"] or figures["refused"] or figures["repeated"]:
        raise RuntimeError(f"not every request has one answer: {figures}")
    return {**figures, **summary(latencies, 1000 * FIRST_TOKEN_S)}


def _brief(runs: Sequence[dict[str, Any]]) -> str:
    p50 = statistics.median(each["added_p50_ms"] for each in runs)
    p99 = statistics.median(each["added_p99_ms"] for each in runs)
    client = max(each["client_cpu_share"] for each in runs)
    return f"added p50 {p50:.1f} ms, p99 {p99:.1f} ms; the client takes {client:.0%} of a core"
