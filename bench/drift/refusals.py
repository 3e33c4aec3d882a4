"""The headline: refusals from 2 to 10 %, the baseline's uncertainty in the null, many runs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from bench.drift.contestants import Bank
from bench.drift.matching import reported
from bench.drift.streams import SCENARIOS, Sizes, changed, quiet

__all__ = ["refusals"]

# Chosen beforehand, from the table in docs/detectors.md; not tuned on these streams.
THRESHOLD = 2000
SEED = 7
SIZES = Sizes(streams=600, length=30_000, runs=400, patience=4000)


def refusals(say: Callable[[str], None]) -> dict[str, Any]:
    """The bank's channel of the catalogue's kind at a fixed threshold, each run with a baseline."""
    scenario = dataclasses.replace(
        SCENARIOS["refusals"], sizes=SIZES, changes={"0.10": "2 to 10 %"}
    )
    streams = quiet(scenario, SEED)
    changes = {change: changed(scenario, change, SEED) for change in scenario.changes}
    found = reported(Bank(scenario), streams, changes, math.log(THRESHOLD))
    found |= {"threshold": THRESHOLD, "length": SIZES.length}
    say(str(found))
    return found
