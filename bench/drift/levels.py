"""The bank at evidence as the policy asks for it: how rare are alarms, how late is a change?

Unlike in the table no threshold is fitted to anything.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from bench.drift.contestants import Bank
from bench.drift.matching import reported
from bench.drift.streams import SCENARIOS, Scenario, Sizes, changed, quiet
from bench.drift.together import evidence_of
from penstock_drift.detectors.bernoulli import Bernoulli

__all__ = ["LEVELS", "levels"]

SEED = 11
SIZES = Sizes(streams=400, length=20_000, runs=200, patience=4000)
# As the default policy suspects one signal, and before it a fifth of that.
LEVELS = (2_000, 10_000)
SHOWN = ("refusals", "classes", "gauss", "student", "length", "languages")
# Quiet rates of 2 %, watched for so many values; what e-BH at alpha 0.0001 asks of one signal in
# 2,000.
RATES, WATCHED, BASELINE, ALONE = 40_000, 5_000, 2_000, 2e7
AT_ONCE = 2_000


def levels(say: Callable[[str], None]) -> dict[str, Any]:
    """Values to a false alarm and delays by signal and evidence, and many quiet rates."""
    scenarios = [SCENARIOS[name] for name in SHOWN]
    worse = dataclasses.replace(
        SCENARIOS["refusals"], title="refusals, 2 %, more is worse", worse=True
    )
    found = {}
    for scenario in (worse, *scenarios):
        found[scenario.title] = _of(scenario)
        say(f"{scenario.title}: {found[scenario.title]}")
    found["quiet rates"] = _quiet_rates()
    say(str(found["quiet rates"]))
    return found


def _of(scenario: Scenario) -> dict[str, Any]:
    scenario = dataclasses.replace(scenario, sizes=SIZES)
    streams = quiet(scenario, SEED)
    changes = {change: changed(scenario, change, SEED) for change in scenario.changes}
    bank = Bank(scenario)
    found = {str(level): reported(bank, streams, changes, math.log(level)) for level in LEVELS}
    return found | {"titles": dict(scenario.changes)}


def _quiet_rates() -> dict[str, Any]:
    """How many of very many ever reach an evidence."""
    rng = np.random.default_rng(SEED)
    reached = dict.fromkeys((1e4, ALONE), 0)
    for _ in range(RATES // AT_ONCE):
        detectors = []
        for events in rng.binomial(BASELINE, 0.02, AT_ONCE).tolist():
            detector = Bernoulli(None)
            detector.count, detector.events = BASELINE, float(events)
            detector.arm()
            detectors.append(detector)
        highest = evidence_of(detectors, rng.random((AT_ONCE, WATCHED)) < 0.02).max(axis=1)
        for level in reached:
            reached[level] += int((highest >= math.log(level)).sum())
    return {
        "rates": RATES,
        "watched": WATCHED,
        "reached": {f"{level:.0f}": count for level, count in reached.items()},
    }
