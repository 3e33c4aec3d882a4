"""Tokens per second of every contender, in rounds: each in turn is started, warmed and measured.

Only what is measured is up, so no idle server takes a share of the cores. The machine drifts
within an hour by more than contenders differ; within a round they are minutes apart, and ratios
are taken within rounds.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from contenders import CONTENDERS, NOT_HERE
from workload import MAX_TOKENS, endless_model

__all__ = ["throughput"]


def throughput(
    quick: bool,
    say: Callable[[str], None],
    done: dict[str, Any],
    save: Callable[[], None],
    only: Sequence[str] = (),
    rounds: int = 5,
) -> None:
    """The part `throughput`; adds to `done` and saves after each visit, and skips what is there."""
    rounds, count, repeats = (1, 160, 1) if quick else (rounds, 1200, 2)
    visits: list[dict[str, Any]] = done.setdefault("visits", [])
    failures: dict[str, str] = done.setdefault("failures", {})
    done["requests"], done["max_tokens"] = count, MAX_TOKENS
    known = {(visit["contender"], visit["round"]) for visit in visits}
    names = [name for name in CONTENDERS if not only or name in only]
    with tempfile.TemporaryDirectory(prefix="bench-") as place:
        model = endless_model(Path(place))
        for number in range(rounds):
            # Whoever is first in a round is not always the same.
            for name in names[number % len(names) :] + names[: number % len(names)]:
                if (name, number) in known or name in failures:
                    continue
                folder = Path(place) / f"{name}-{number}"
                folder.mkdir()
                try:
                    visit = _visit(name, model, folder, count, repeats)
                except (NOT_HERE, RuntimeError) as error:
                    failures[name] = str(error)
                    say(f"({name}) cannot run here: {str(error)[-500:]}")
                else:
                    visits.append({"contender": name, "round": number, **visit})
                    rates = ", ".join(f"{run['tokens_per_s']:,.0f}" for run in visit["runs"])
                    say(f"({name}) round {number + 1}: {rates} tokens/s")
                save()


def _visit(name: str, model: Path, folder: Path, count: int, repeats: int) -> dict[str, Any]:
    started = time.monotonic()
    runs = []
    with CONTENDERS[name](model, folder) as measure:
        ready_s = time.monotonic() - started
        if name != "A":  # it warms itself up, in every process anew
            measure(count)
        load = os.getloadavg()[0]
        for _ in range(repeats if name != "A" else 1):
            figures = measure(count)
            if figures["tokens"] != count * MAX_TOKENS:
                raise RuntimeError(f"not all answers have {MAX_TOKENS} tokens: {figures}")
            runs.append({**figures, "tokens_per_s": figures["tokens"] / figures["seconds"]})
    return {"runs": runs, "load": load, "ready_s": ready_s}
