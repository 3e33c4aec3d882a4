"""What a rival's module does with its contestants; runs in its environment, without penstock."""

from __future__ import annotations

import importlib.metadata
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.drift.matching import Changed, Quiet, compare

__all__ = ["run"]


def run(distribution: str, contestants: Callable[[str], Sequence[Any]]) -> None:
    """Reads the streams that the command line names, and writes what is found.

    Args:
        distribution: Whose version is noted.
        contestants: Those of a kind of stream (`rate` or `number`).
    """
    given, answer, kind, target = sys.argv[1:]
    with np.load(given) as found:
        streams = Quiet(found["baseline"], found["values"])
        names = sorted({key.rpartition("/")[0] for key in found if "/" in key})
        changes = {
            name: Changed(*(found[f"{name}/{field}"] for field in ("baseline", "values", "places")))
            for name in names
        }
    results: dict[str, Any] = {}
    for who in contestants(kind):
        started = time.process_time()
        results[who.name] = compare(who, streams, changes, float(target))
        results[who.name]["version"] = importlib.metadata.version(distribution)
        results[who.name]["us"] = round(_microseconds(who, streams), 1)
        results[who.name]["cpu_s"] = round(time.process_time() - started, 1)
    Path(answer).write_text(json.dumps(results), encoding="utf-8")


def _microseconds(who: Any, streams: Quiet, count: int = 1000) -> float:
    """Of CPU, per value; the least of three."""
    values = streams.values[0][:count]
    best = float("inf")
    for _ in range(3):
        if hasattr(who, "scores"):
            steps = who.scores(streams.baseline[0], values)
        else:
            steps = who.fires(who.strict, streams.baseline[0], values)
        next(steps)
        started = time.process_time()
        for _ in steps:
            pass
        best = min(best, (time.process_time() - started) / (count - 1) * 1e6)
    return best
