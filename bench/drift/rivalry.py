"""Rivals, each in an environment of its own: their pins and ours do not go together.

A rival's module in `rivals/` runs there: it reads the streams, prepared as River's detectors get
them, tunes and reports by the same code as all others (`matching`), and writes JSON.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.drift.comparison import ALL, TARGET, arrays, shown

__all__ = ["RIVALS", "compared"]

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
# Environments, by the name of their requirements and, with underscores, of their modules.
RIVALS = ("frouros", "menelaus", "alibi-detect", "evidently")
# They are slow: a few kinds of streams, and some of each.
SCENARIOS = ("refusals", "classes", "gauss", "student", "season")
STREAMS, RUNS = 20, 40


def compared(
    done: Mapping[str, Any], only: Sequence[str], say: Callable[[str], None]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """What is found of each rival on each scenario, as `RIVAL/SCENARIO`."""
    for rival in RIVALS:
        for name in SCENARIOS:
            if f"{rival}/{name}" in done or (only and name not in only):
                continue
            found = _run(_environment(rival), rival, name)
            short = {
                who: (row.get("arl"), {c: e["median"] for c, e in row.get("changes", {}).items()})
                for who, row in found.items()
            }
            say(f"{rival}, {name}: {short}")
            yield f"{rival}/{name}", found


def _environment(rival: str) -> Path:
    """The environment's Python; made when missing."""
    python = HERE / ".rivals" / rival / "bin/python"
    if not python.exists():
        uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
        where = HERE / ".rivals" / rival
        subprocess.run([uv, "venv", "-q", "--python", "3.11", where], check=True)
        requirements = HERE / "rivals" / f"{rival}.txt"
        subprocess.run(
            [uv, "pip", "install", "-q", "--python", python, "-r", requirements], check=True
        )
    return python


def _run(python: Path, rival: str, name: str) -> dict[str, Any]:
    scenario = ALL[name]
    streams, changes = shown("", scenario, *arrays(scenario))
    with tempfile.TemporaryDirectory() as folder:
        given, answer = Path(folder) / "streams.npz", Path(folder) / "found.json"
        halves = [streams.half(second, STREAMS) for second in (False, True)]
        flat: dict[str, Any] = {
            "baseline": np.concatenate([half.baseline for half in halves]),
            "values": np.concatenate([half.values for half in halves]),
        }
        for change, each in changes.items():
            some = each.some(RUNS)
            flat |= {f"{change}/{field}": value for field, value in vars(some).items()}
        np.savez(given, **flat)
        module = f"bench.drift.rivals.{rival.replace('-', '_')}"
        subprocess.run(
            [python, "-W", "ignore", "-m", module, given, answer, scenario.kind, str(TARGET)],
            cwd=ROOT,
            check=True,
        )
        found: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
    return found
