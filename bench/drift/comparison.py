"""The table: every contestant on every scenario, at thresholds matched to one mean time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bench.drift.contestants import BANK, Bank, contestants, prepared
from bench.drift.learners import LEARNERS
from bench.drift.matching import Changed, Delays, Quiet, compare, delays, first_alarm
from bench.drift.streams import SCENARIOS, Scenario, changed, quiet

__all__ = ["ALL", "CACHE", "TARGET", "arrays", "compared", "defaults", "forget"]

# Values to a false alarm that every contestant is set to.
TARGET = 10_000
SEED = 20_261_121
SLOW = ("KSWIN", "HDDM_A", "HDDM_W")
CACHE = Path(__file__).parent / ".cache"
ALL: Mapping[str, Scenario] = {**SCENARIOS, **LEARNERS}


def arrays(scenario: Scenario) -> tuple[Quiet, dict[str, Changed]]:
    """The scenario's streams; kept in a folder, since some take minutes to draw."""
    CACHE.mkdir(exist_ok=True)
    path = _path(scenario)
    if not path.exists():
        drawn = {"quiet": quiet(scenario, SEED)}
        for change in scenario.changes:
            drawn[change] = changed(scenario, change, SEED)
        flat = {
            f"{name}/{field}": value
            for name, each in drawn.items()
            for field, value in vars(each).items()
        }
        # Under another name until it is whole.
        partial = path.with_suffix(".part.npz")
        np.savez(partial, **flat)
        partial.rename(path)
    with np.load(path) as found:
        streams = Quiet(found["quiet/baseline"], found["quiet/values"])
        changes = {
            name: Changed(*(found[f"{name}/{field}"] for field in ("baseline", "values", "places")))
            for name in scenario.changes
        }
    return streams, changes


def forget(scenario: Scenario) -> None:
    """Has a scenario's streams drawn anew."""
    _path(scenario).unlink(missing_ok=True)


def _path(scenario: Scenario) -> Path:
    size = scenario.sizes
    name = f"{scenario.name}-{SEED}-{size.streams}x{size.length}-{size.runs}x{size.patience}.npz"
    return CACHE / name


def shown(
    name: str, scenario: Scenario, streams: Quiet, changes: Mapping[str, Changed]
) -> tuple[Quiet, dict[str, Changed]]:
    """The streams as a contestant gets them."""
    if name == BANK:
        return streams, dict(changes)
    return (
        Quiet(*prepared(scenario, streams.baseline, streams.values)),
        {
            change: Changed(*prepared(scenario, each.baseline, each.values), each.places)
            for change, each in changes.items()
        },
    )


def compared(
    scenario: Scenario, done: Mapping[str, Any], say: Callable[[str], None], *, slow: bool
) -> Iterator[tuple[str, dict[str, Any]]]:
    """What is found of each contestant, of the quick or the slow ones, that is not done yet."""
    left = {
        name: who
        for name, who in contestants(scenario, TARGET).items()
        if name not in done and (name in SLOW) is slow
    }
    if not left:
        return
    streams, changes = arrays(scenario)
    bank = Bank(scenario)
    known = done.get(BANK) or _measured(scenario, bank, streams, changes, None, say)
    yield BANK, known
    # Every other is compared with the bank on the very same runs.
    against = {name: delays(bank, known["setting"], each) for name, each in changes.items()}
    for name, who in left.items():
        if name != BANK:
            yield name, _measured(scenario, who, streams, changes, against, say)


def _measured(
    scenario: Scenario,
    who: Any,
    streams: Quiet,
    changes: Mapping[str, Changed],
    against: Mapping[str, Delays] | None,
    say: Callable[[str], None],
) -> dict[str, Any]:
    started = time.process_time()
    found = compare(who, *shown(who.name, scenario, streams, changes), TARGET, against)
    found["cpu_s"] = round(time.process_time() - started, 1)
    medians = {change: each["median"] for change, each in found.get("changes", {}).items()}
    say(
        f"{scenario.name}, {who.name}: {found.get('arl') or 0:,.0f} values to a false alarm, "
        f"{medians}, {found['cpu_s']} s"
    )
    return found


def defaults(say: Callable[[str], None]) -> dict[str, Any]:
    """False alarms on the seasonal stream at defaults: the bank's, and plain ADWIN's.

    Until the first alarm of each stream; of ADWIN, which goes on by itself, all of them too.
    """
    scenario = SCENARIOS["season"]
    streams, changes = arrays(scenario)
    everybody = contestants(scenario, TARGET)
    # As the default policy suspects one signal alone; a finding among many needs more.
    settings = {BANK: math.log(1e4), "ADWIN": 0.002}
    found: dict[str, Any] = {}
    length = streams.values.shape[1]
    for name, setting in settings.items():
        who = everybody[name]
        rows = shown(name, scenario, streams, changes)[0]
        pairs = list(zip(rows.baseline, rows.values, strict=True))
        times = [first_alarm(who, setting, *row) for row in pairs]
        watched = sum(length if t is None else t for t in times)
        alarms = sum(t is not None for t in times)
        found[name] = {"setting": setting, "streams": len(times), "first_alarms": alarms,
                       "values": watched}  # fmt: skip
        if name != BANK:
            found[name]["all_alarms"] = sum(sum(who.fires(setting, *row)) for row in pairs)
            found[name]["all_values"] = length * len(pairs)
        say(f"{name}: {found[name]}")
    return found
