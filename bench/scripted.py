"""Requests per second, and CPU time per request, of everything around an engine.

The scripted engine answers after 50 ms, 512 at a time, so what is measured is the platform: the
pump alone, from `admitted`, and ingest and pump together, from the public topic.
"""

from __future__ import annotations

import dataclasses
import os
import statistics
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from backlog import Backlog, count_answers, end_offsets, wait_committed
from processes import parts_of_stack, spent, usage_of
from records import Shape, admitted_records, request_records

from penstock_native.stack import Stack

__all__ = ["FIRST_TOKEN_S", "PUMP_GROUP", "Leg", "drain", "scripted_env", "throughput"]

FIRST_TOKEN_S = 0.05
SLOTS = 512
PUMP_GROUP = "penstock-inference"
INGEST_GROUP = "penstock-ingest"  # with the default topic prefix
DRAIN_S = 600.0


@dataclasses.dataclass(frozen=True)
class Leg:
    """A part of the way that a request takes.

    Attributes:
        name: For people.
        topic: Where a request is put.
        services: What runs.
    """

    name: str
    topic: str
    services: tuple[str, ...]


PUMP = Leg("pump", "admitted", ("kafka", "inference"))
WHOLE = Leg("ingest and pump", "requests", ("kafka", "ingest", "inference"))


def scripted_env(**more: str) -> dict[str, str]:
    """The settings of a stack with the scripted engine, caches and probes off."""
    return {
        "PENSTOCK_INFERENCE_ENGINE": "scripted",
        "PENSTOCK_INFERENCE_SCRIPTED_FIRST_TOKEN_S": str(FIRST_TOKEN_S),
        "PENSTOCK_INFERENCE_SCRIPTED_SLOTS": str(SLOTS),
        "PENSTOCK_INFERENCE_CACHE_MIB": "0",
        "PENSTOCK_INGEST_PROBE_INTERVAL_S": "0",
        # What a tenant has queued is counted as always, but never too much.
        "PENSTOCK_INGEST_MAX_QUEUED_PER_TENANT": "10000000",
        "PENSTOCK_INGEST_MAX_WAITING": "100000",
        **more,
    }


def drain(
    stack: Stack,
    leg: Leg,
    count: int,
    shape: Shape,
    *,
    meanwhile: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Puts a backlog before a stack and measures until it is answered.

    Raises:
        RuntimeError: Not every request has exactly one response.
    """
    bootstrap = stack.env["PENSTOCK_KAFKA_BOOTSTRAP"]
    prefix = stack.env["PENSTOCK_TOPIC_PREFIX"]
    run = uuid.uuid4().hex[:8]
    make = admitted_records if leg.topic == "admitted" else request_records
    responses, admitted = f"{prefix}.responses", f"{prefix}.admitted"
    since = end_offsets(bootstrap, responses)
    admitted_before = end_offsets(bootstrap, admitted)
    backlog = Backlog(bootstrap, f"{prefix}.{leg.topic}", make(run, count, shape))
    parts = parts_of_stack(stack.state_dir)
    peak: dict[str, float] = {}

    def look() -> None:
        for part, usage in usage_of(parts).items():
            peak[part] = max(usage.rss_mib, peak.get(part, 0.0))
        meanwhile()

    look()
    before, load, rss = usage_of(parts), os.getloadavg()[0], dict(peak)
    steal = _machine_ticks()
    started = backlog.release()
    if leg is WHOLE:
        admitted_at = backlog.wait_done(INGEST_GROUP, DRAIN_S, meanwhile=look)
        # The last admitted record of each partition has its commit marker behind it.
        behind = {
            p: end - 2
            for p, end in end_offsets(bootstrap, admitted).items()
            if end > admitted_before[p]
        }
        ended = wait_committed(bootstrap, PUMP_GROUP, admitted, behind, DRAIN_S, meanwhile=look)
    else:
        admitted_at = started
        ended = backlog.wait_done(PUMP_GROUP, DRAIN_S, meanwhile=look)
    used = spent(before, usage_of(parts))
    idle = _machine_ticks()
    answers = count_answers(bootstrap, responses, since, count)
    if len(answers) != count or max(answers.values()) != 1:
        raise RuntimeError(
            f"{count} requests, {len(answers)} of them answered, {sum(answers.values())} responses"
        )
    elapsed_s = ended - started
    return {
        "requests": count,
        "shape": dataclasses.asdict(shape),
        "seconds": elapsed_s,
        "admitted_after_s": admitted_at - started,
        "requests_per_s": count / elapsed_s,
        "cpu_ms_per_request": {part: 1000 * s / count for part, s in used.items()},
        "cpu_ms_per_request_total": 1000 * sum(used.values()) / count,
        "cpu_others_share": _others(steal, idle, sum(used.values())),
        "rss_mib_before": rss,
        "rss_mib_peak": peak,
        "load_before": load,
    }


def throughput(quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """The part `scripted`: both legs, several rounds each, warmed."""
    sizes = (4_000, 2) if quick else (60_000, 5)
    found: dict[str, Any] = {}
    for leg in (PUMP, WHOLE):
        with Stack.ephemeral(leg.services, scripted_env()) as stack:
            drain(stack, leg, 2_000 if quick else 20_000, Shape())
            rounds = []
            for number in range(sizes[1]):
                rounds.append(drain(stack, leg, sizes[0], Shape()))
                say(f"{leg.name}, round {number + 1}: {brief(rounds[-1])}")
            found[leg.topic] = rounds
            if leg is WHOLE:
                found["requests_json"] = [
                    drain(stack, leg, sizes[0], Shape(json=True)) for _ in range(1 if quick else 3)
                ]
                say(f"{leg.name}, as JSON: {brief(found['requests_json'][-1])}")
    return found


def brief(figures: Mapping[str, Any]) -> str:
    """A round in a line."""
    parts = ", ".join(
        f"{part} {ms:.3f}" for part, ms in sorted(figures["cpu_ms_per_request"].items())
    )
    return (
        f"{figures['requests_per_s']:,.0f} requests/s; "
        f"{figures['cpu_ms_per_request_total']:.3f} ms of CPU each ({parts})"
    )


def median(rounds: list[dict[str, Any]], name: str) -> float:
    """The median of a figure."""
    return statistics.median(each[name] for each in rounds)


def _machine_ticks() -> tuple[float, float]:
    """Busy CPU seconds of the whole machine, and now."""
    names = open("/proc/stat").readline().split()[1:]  # noqa: SIM115, PTH123
    ticks = [int(each) for each in names[:8]]
    busy = sum(ticks) - ticks[3] - ticks[4]
    return busy / os.sysconf("SC_CLK_TCK"), time.monotonic()


def _others(before: tuple[float, float], after: tuple[float, float], own_s: float) -> float:
    """The share of the machine's cores that others used meanwhile."""
    wall = max(1e-9, after[1] - before[1]) * (os.cpu_count() or 1)
    return max(0.0, (after[0] - before[0] - own_s) / wall)
