"""Many keys at once, through the real folds and judge: what is found, missed and made up.

Two partitions: the keys that stay quiet, and the few that may drift. The second is folded twice,
quiet and drifting, and judged with the first each time: so one pass gives a run in which nothing
changes and one in which some keys do, with the same quiet keys in both.
"""

from __future__ import annotations

import random
import time
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from bench.drift.costs import SIGNALS, START_MS, draw_values
from penstock_drift.channels.bank import CatalogueBank
from penstock_drift.findings.states import State
from penstock_drift.fold.partition import PartitionFold
from penstock_drift.judge.judge import Judge, Verdicts
from penstock_drift.records.evidence import TickEvidence
from penstock_drift.records.values import Key, Observation, Source, Tick
from penstock_drift.signals.catalogue import CATALOGUE

__all__ = ["CHANGE_AT", "fleet"]

# Ten responses of each key per tick of ten seconds.
PER_TICK = 10
TICK_MS = 10_000
SPACING_MS = TICK_MS // PER_TICK
CHANGE_AT = 3500


def fleet(
    seed: int, *, drifting: int, keys: int = 200, responses: int = 5000, change_at: int = CHANGE_AT
) -> dict[str, dict[str, Any]]:
    """One run of either kind: `null` and `drifting`.

    Args:
        seed: Decides everything.
        drifting: Keys whose refusals go from 2 to 10 %.
        keys: How many keys there are, with ten signals each.
        responses: Of each key; 2,000 of them are its baseline.
        change_at: The response at which they change.
    """
    started = time.process_time()
    whose = [Key("m", f"v{number:03}") for number in range(keys)]
    changing = set(random.Random(seed).sample(whose, drifting))
    quiet = _Words(0, seed, [key for key in whose if key not in changing], 10**9)
    own = [key for key in whose if key in changing]
    worlds = {
        "null": (_Words(1, seed, own, 10**9), frozenset[Key]()),
        "drifting": (_Words(1, seed, own, change_at), frozenset(changing)),
    }
    judges = {name: Judge(CATALOGUE) for name in worlds}
    told = {name: Verdicts() for name in worlds}
    offset = 0
    for tick in range(responses // PER_TICK):
        same = quiet.of(tick)
        for name, (words, _) in worlds.items():
            for evidence in (*same, *words.of(tick)):
                offset += 1
                verdicts = judges[name].take(evidence, offset)
                told[name].events += verdicts.events
                told[name].news += verdicts.news
    sizes = {"seed": seed, "keys": keys, "signals": len(SIGNALS), "responses": responses}
    spent = {"cpu_s": round(time.process_time() - started, 1)}
    return {
        name: sizes
        | {"armed": judges[name].armed}
        | _counted(told[name], changed, change_at)
        | spent
        for name, (_, changed) in worlds.items()
    }


class _Words:
    """One partition: its keys' responses, folded tick by tick."""

    def __init__(self, partition: int, seed: int, keys: Sequence[Key], change_at: int) -> None:
        self._fold = PartitionFold(partition, 2, CatalogueBank(CATALOGUE))
        self._keys = [(key, random.Random(f"{seed}/{key.variant}")) for key in keys]
        self._change_at = change_at
        self._offset = 0

    def of(self, tick: int) -> Sequence[TickEvidence]:
        """What the fold says when a tick is closed."""
        records = (*self._responses(tick), Tick("responses/0", START_MS + (tick + 1) * TICK_MS, 1))
        found: list[TickEvidence] = []
        for record in records:
            self._offset += 1
            found += self._fold.apply(record, self._offset)
        return found

    def _responses(self, tick: int) -> Iterator[Observation]:
        for number in range(tick * PER_TICK, (tick + 1) * PER_TICK):
            rate = 0.02 if number < self._change_at else 0.10
            for each, (key, draw) in enumerate(self._keys):
                yield Observation(
                    key,
                    "r",
                    START_MS + number * SPACING_MS,
                    Source("responses", 0, number * len(self._keys) + each),
                    draw_values(draw, rate),
                    1,
                )


def _counted(told: Verdicts, changed: Collection[Key], change_at: int) -> dict[str, Any]:
    """Of every key and signal the first finding, in responses of its key."""
    first: dict[tuple[Key, str], int] = {}
    for event in told.events:
        if event.state is State.DRIFT and event.previous is not State.DRIFT:
            at = (event.detected_ms - START_MS) // SPACING_MS
            first.setdefault((event.watch.key, event.watch.signal), at)
    true = [
        at - change_at
        for (key, signal), at in first.items()
        if signal == "refusal" and key in changed and at >= change_at
    ]
    return {
        "drifting": len(changed),
        "found": len(true),
        "missed": len(changed) - len(true),
        "false": len(first) - len(true),
        "delays": sorted(true),
        "incidents": len({each.incident.incident_id for each in told.news}),
    }
