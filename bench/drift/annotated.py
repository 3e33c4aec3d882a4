"""River's annotated series: short, real, with changes that people marked. No null is known of them.

Each contestant keeps the setting that it was given on independent Gaussian values, learns from a
series' first values, and starts anew after an alarm. A change counts as marked where at least half
of the annotators marked it, within a few values; it is found by an alarm within the next `WITHIN`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from river.drift import datasets

from bench.drift.contestants import BANK, contestants, prepared
from bench.drift.matching import first_alarm
from bench.drift.streams import SCENARIOS

__all__ = ["annotated", "marked", "series"]

# Of multivariate ones the column that is watched.
COLUMNS = {"Apple": "Close", "RunLog": "Pace", "Occupancy": "V3"}
# Values that are learnt from, at the beginning and after an alarm.
LEARNT = 40
WITHIN = 60
# Marks closer than this are one.
NEAR = 10


def series(name: str) -> list[float]:
    """A series' values."""
    found = []
    for _, value in getattr(datasets, name)():
        found.append(float(value[COLUMNS[name]] if isinstance(value, dict) else value))
    return found


def marked(annotations: dict[str, Sequence[int]]) -> list[int]:
    """Changes that at least half of the annotators marked, by the median of their marks."""
    marks = sorted((place, who) for who, places in annotations.items() for place in places)
    found, group = [], marks[:1]
    for mark in [*marks[1:], (10**9, "")]:
        if group and mark[0] - group[0][0] > NEAR:
            if 2 * len({who for _, who in group}) >= len(annotations):
                found.append(int(np.median([place for place, _ in group])))
            group = []
        group.append(mark)
    return found


def annotated(say: Callable[[str], None]) -> dict[str, Any]:
    """Changes found and false alarms, by contestant, over all series.

    Raises:
        FileNotFoundError: The settings are not there: the table's part `gauss` comes first.
    """
    settings = _settings()
    scenario = dataclasses.replace(SCENARIOS["gauss"], baseline=LEARNT)
    found: dict[str, Any] = {"series": {}, "contestants": {}}
    everybody = contestants(scenario, 10_000)
    for name in sorted(datasets.__all__):
        values, changes = series(name), marked(getattr(datasets, name)().annotations)
        changes = [place for place in changes if place >= LEARNT]
        found["series"][name] = {"values": len(values), "marked": changes}
        for who in everybody.values():
            if who.name not in settings:
                continue
            alarms = _alarms(who, settings[who.name], values)
            hits = sum(any(c <= a < c + WITHIN for a in alarms) for c in changes)
            false = sum(not any(c <= a < c + WITHIN for c in changes) for a in alarms)
            row = found["contestants"].setdefault(
                who.name, {"family": who.family, "found": 0, "marked": 0, "false": 0, "series": {}}
            )
            row["found"] += hits
            row["marked"] += len(changes)
            row["false"] += false
            row["series"][name] = {"alarms": alarms, "found": hits, "false": false}
    say(json.dumps({n: [r["found"], r["false"]] for n, r in found["contestants"].items()}))
    return found


def _settings() -> dict[str, float]:
    from report import RESULTS

    parts = json.loads((RESULTS / "drift.json").read_text(encoding="utf-8"))
    rows = parts.get("table", {}).get("figures", {}).get("gauss", {})
    found = {name: row["setting"] for name, row in rows.items() if row["setting"] is not None}
    if BANK not in found:
        raise FileNotFoundError("measure --parts table --only gauss first: it gives the settings")
    return found


def _alarms(who: Any, setting: float, values: Sequence[float]) -> list[int]:
    """Places of its alarms; after each it learns anew from the next `LEARNT` values."""
    alarms, start = [], 0
    while start + LEARNT < len(values):
        whole = np.array(values[start:])
        baseline, rest = whole[:LEARNT], whole[LEARNT:]
        time = _first(who, setting, baseline, rest)
        if time is None:
            break
        start += LEARNT + time
        alarms.append(start - 1)
    return alarms


def _first(who: Any, setting: float, baseline: Any, rest: Any) -> int | None:
    if who.name == BANK:
        return first_alarm(who, setting, baseline, rest)
    return first_alarm(who, setting, *prepared(SCENARIOS["gauss"], baseline, rest))
