"""What more requests, partitions, keys and tenants cost: throughput and memory per request."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import Any

from records import Shape
from scripted import FIRST_TOKEN_S, WHOLE, drain, scripted_env

from penstock_native.stack import Stack

__all__ = ["growth"]

BASE = {"requests": 10_000, "partitions": 4, "keys": 0, "tenants": 1}
AXES = {
    "requests": (1_000, 10_000, 100_000),
    "partitions": (1, 4, 16),
    "keys": (10, 100, 1_000, 10_000),
    "tenants": (1, 10, 100, 1_000),
}
QUICK = {"requests": (1_000,), "partitions": (1,), "keys": (100,), "tenants": (1_000,)}


def growth(
    quick: bool, say: Callable[[str], None], done: list[dict[str, Any]], save: Callable[[], None]
) -> None:
    """The part `growth`; appends to `done` and saves after each row, and skips what is there."""
    known = {(row["axis"], row["value"]) for row in done}
    for axis, value, setting in _rows(QUICK if quick else AXES):
        if (axis, value) in known:
            continue
        env = scripted_env(PENSTOCK_CLI_WORK_PARTITIONS=str(setting["partitions"]))
        count = min(setting["requests"], 2_000) if quick else setting["requests"]
        shape = Shape(tenants=setting["tenants"], keys=setting["keys"])
        # A stack of its own for each: memory that a process once had it keeps.
        with Stack.ephemeral(WHOLE.services, env) as stack:
            drain(stack, WHOLE, 1_000, Shape(tenants=1))
            figures = drain(stack, WHOLE, count, shape)
        more = {
            part: 1024 * (figures["rss_mib_peak"][part] - figures["rss_mib_before"][part]) / count
            for part in ("ingest", "pump", "engine", "broker")
        }
        bound = setting["keys"] / FIRST_TOKEN_S if setting["keys"] else None
        row = {"axis": axis, "value": value, **setting, "requests": count, "bound_per_s": bound}
        done.append({**row, "kib_per_request": more, **_kept(figures)})
        gc.collect()
        save()
        say(
            f"{axis} {value:,}: {figures['requests_per_s']:,.0f} requests/s, "
            f"{figures['cpu_ms_per_request_total']:.3f} ms of CPU each, "
            f"pump {more['pump']:.2f} and ingest {more['ingest']:.2f} KiB each"
        )


def _rows(axes: dict[str, tuple[int, ...]]) -> Iterator[tuple[str, int, dict[str, int]]]:
    for axis, values in axes.items():
        for value in values:
            yield axis, value, {**BASE, axis: value}


def _kept(figures: dict[str, Any]) -> dict[str, Any]:
    names = (
        "requests_per_s",
        "cpu_ms_per_request",
        "cpu_ms_per_request_total",
        "rss_mib_before",
        "rss_mib_peak",
        "load_before",
    )
    return {name: figures[name] for name in names}
