"""What an update costs and how large states become."""

from __future__ import annotations

import json
import math
import pickle
import random
import time
import uuid
from collections.abc import Callable
from typing import Any

from bench.drift.comparison import TARGET
from bench.drift.contestants import Alarming, contestants, prepared
from bench.drift.streams import SCENARIOS, Sizes, quiet
from penstock_drift.channels.bank import CatalogueBank
from penstock_drift.fold.partition import PartitionFold
from penstock_drift.policy.document import parse_policy
from penstock_drift.records.evidence import Exemplar
from penstock_drift.records.values import Key, Observation, PolicyChange, Source, Tick
from penstock_drift.signals.catalogue import CATALOGUE

__all__ = ["SIGNALS", "draw_values", "single", "throughput"]

# Ten of the catalogue, of the types in which they come: seven numbers, two rates, a category.
SIGNALS = (
    "refusal", "truncated", "latency", "latency_first_token", "tokens_per_second",
    "completion_tokens", "prompt_tokens", "cost", "mean_log_probability", "answer_language",
)  # fmt: skip
START_MS = 1_777_636_800_000


def draw_values(draw: random.Random, refusals: float = 0.02) -> dict[str, Any]:
    """One response's values of `SIGNALS`, independent and unchanging."""
    gauss = draw.gauss
    return {
        "refusal": float(draw.random() < refusals),
        "truncated": float(draw.random() < 0.05),
        "latency": math.exp(gauss(0, 0.4)),
        "latency_first_token": math.exp(gauss(-2, 0.5)),
        "tokens_per_second": math.exp(gauss(4, 0.3)),
        "completion_tokens": float(int(math.exp(gauss(5, 0.8)))),
        "prompt_tokens": float(int(math.exp(gauss(6, 1.0)))),
        "cost": math.exp(gauss(-7, 0.7)),
        "mean_log_probability": -math.exp(gauss(-1, 0.4)),
        "answer_language": "en" if draw.random() < 0.8 else draw.choice(("de", "fr", "es")),
    }


def single(say: Callable[[str], None]) -> dict[str, Any]:
    """Microseconds of CPU per update and bytes of state of each contestant alone.

    States of ours as JSON, of River's own as a pickle (they have no other form).
    """
    import dataclasses

    found: dict[str, Any] = {}
    for name in ("refusals", "gauss"):
        scenario = dataclasses.replace(
            SCENARIOS[name], sizes=Sizes(streams=2, length=20_000, runs=2)
        )
        streams = quiet(scenario, 3)
        for who in contestants(scenario, TARGET).values():
            rows = prepared(scenario, streams.baseline[:1], streams.values[:1])
            if who.name == "bank":
                rows = streams.baseline[:1], streams.values[:1]
            # Without an alarm, so that nothing starts anew.
            count = 2000 if who.name in ("KSWIN", "NoDrift") else 20_000
            runs = who.scores if hasattr(who, "scores") else None
            best = math.inf
            for _ in range(3):
                steps = (
                    runs(rows[0][0], rows[1][0][:count])
                    if runs
                    else who.fires(getattr(who, "strict", TARGET), rows[0][0], rows[1][0][:count])
                )
                next(steps)
                started = time.process_time()
                for _ in steps:
                    pass
                best = min(best, (time.process_time() - started) / (count - 1) * 1e6)
            found.setdefault(name, {})[who.name] = {
                "family": who.family, "us": round(best, 2), "bytes": _state_bytes(who, rows),
            }  # fmt: skip
            say(f"{name}, {who.name}: {found[name][who.name]}")
    return found


def _state_bytes(who: Any, rows: Any) -> int | None:
    if not isinstance(who, Alarming):
        return None
    detector = who._make(who.strict)
    for value in rows[1][0].tolist():
        detector.update(value)
    if who.family == "River":
        return len(pickle.dumps(detector._detector))
    return len(json.dumps(detector.state(), separators=(",", ":")))


def throughput(
    say: Callable[[str], None], keys: int = 1000, responses: int = 100_000, baseline: int = 100
) -> dict[str, Any]:
    """Responses per second of CPU through the bank: `keys` keys with ten signals each, armed.

    The baseline is short so that arming does not take an hour; what an armed channel does and
    holds does not depend on it. Once through the channels alone, once through the fold (ticks,
    order by time, evidence).
    """
    draw = random.Random(5)
    document = f'signals: {{"*": {{baseline_observations: {baseline}}}}}\nlateness_s: 0\n'
    policy = parse_policy(document)
    bank = CatalogueBank(CATALOGUE)
    channels = [{s: bank.channel(s, policy) for s in SIGNALS} for _ in range(keys)]
    made = [draw_values(draw) for _ in range(20_000)]
    names = [uuid.UUID(int=draw.getrandbits(128)).hex for _ in range(1000)]
    number = 0

    def show(count: int) -> float:
        nonlocal number
        started = time.process_time()
        for _ in range(count):
            number += 1
            exemplar = Exemplar(
                names[number % 1000], Source("responses", 0, number), START_MS + number, math.nan
            )
            own = channels[number % keys]
            for signal, value in made[number % 19_997].items():
                own[signal].update(value, exemplar, 1)  # type: ignore[union-attr]
        return time.process_time() - started

    # Numbers need some more values than they are told, for their units.
    show(keys * 2 * baseline)
    armed = sum(not each.warming for own in channels for each in own.values() if each)
    spent = show(responses)
    sizes = [
        len(json.dumps(each.state(), separators=(",", ":")))
        for own in channels[:100]
        for each in own.values()
        if each
    ]
    found = {
        "keys": keys, "signals": len(SIGNALS), "armed": armed, "responses": responses,
        "channels_per_s": round(responses / spent),
        "us_per_signal": round(spent / responses / len(SIGNALS) * 1e6, 2),
        "state_bytes_mean": round(sum(sizes) / len(sizes)), "state_bytes_most": max(sizes),
    }  # fmt: skip
    say(str(found))
    found |= _through_fold(bank, document, made, names, keys, responses, baseline)
    say(str(found))
    return found


def _through_fold(
    bank: CatalogueBank, document: str, made: list[Any], names: list[str], keys: int,
    responses: int, baseline: int,
) -> dict[str, Any]:  # fmt: skip
    """5,000 responses per second of event time, in ticks of ten seconds."""
    fold = PartitionFold(0, 1, bank)
    fold.apply(PolicyChange(1, document), 0)
    whose = [Key("m", f"v{number}") for number in range(keys)]
    offset, entries = 1, 0

    def show(first: int, count: int) -> float:
        nonlocal offset, entries
        spent = 0.0
        for tick in range(first, first + count, 50_000):
            batch = [
                Observation(
                    whose[n % keys], names[n % 1000], START_MS + n // 5,
                    Source("responses", 0, n), made[n % 19_997], 1,
                )
                for n in range(tick, min(tick + 50_000, first + count))
            ]  # fmt: skip
            until = batch[-1].time_ms // 10_000 * 10_000 + 10_000
            started = time.process_time()
            for each in (*batch, Tick("responses/0", until, 1)):
                offset += 1
                entries += sum(len(told.entries) for told in fold.apply(each, offset))
            spent += time.process_time() - started
        return spent

    warm = -(-keys * 2 * baseline // 50_000) * 50_000
    show(0, warm)
    spent = show(warm, responses)
    return {
        "fold_per_s": round(responses / spent), "fold_armed": fold.armed, "fold_entries": entries,
    }  # fmt: skip
