"""Which checkpoint a training goes on from, and which has the weights to keep.

The trainer writes a checkpoint file by file, so a killed one leaves half a checkpoint. One that is
whole has a marker, written last, with the sizes of its files: those that a power cut emptied do not
count either.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["Checkpoint", "best_step", "found", "held_out_losses", "last_whole", "mark"]

MARKER = "whole.json"
STATE = "trainer_state.json"
PREFIX = "checkpoint-"


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A directory that the trainer wrote.

    Attributes:
        path: The directory.
        step: After how many steps.
        files: Sizes of the files that are there, by relative path.
        marked: Sizes as the marker has them; None where there is no marker.
        state: What the trainer wrote of itself; empty where it cannot be read.
    """

    path: Path
    step: int
    files: Mapping[str, int]
    marked: Mapping[str, int] | None
    state: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def whole(self) -> bool:
        """Whether every file that was written is there as it was written."""
        if self.marked is None or self.state.get("global_step") != self.step:
            return False
        return all(self.files.get(name) == size for name, size in self.marked.items())


def last_whole(checkpoints: Sequence[Checkpoint]) -> Checkpoint | None:
    """The one to go on from; None where there is none."""
    return max((each for each in checkpoints if each.whole), key=lambda c: c.step, default=None)


def held_out_losses(state: Mapping[str, Any]) -> list[float]:
    """What was measured on held-out rows until then, the oldest first."""
    return [
        float(each["eval_loss"]) for each in state.get("log_history", ()) if "eval_loss" in each
    ]


def best_step(checkpoints: Sequence[Checkpoint]) -> int | None:
    """The step with the lowest loss on held-out rows, or the last step where none was measured.

    The trainer keeps the best checkpoint and the last one.
    """
    last = last_whole(checkpoints)
    if last is None:
        return None
    kept = {each.step for each in checkpoints if each.whole}
    measured = [
        (float(each["eval_loss"]), int(each["step"]))
        for each in last.state.get("log_history", ())
        if math.isfinite(each.get("eval_loss", math.nan)) and int(each["step"]) in kept
    ]
    return min(measured)[1] if measured else last.step


def found(directory: Path) -> list[Checkpoint]:
    """What is in a directory of checkpoints, by step."""
    if not directory.is_dir():
        return []
    steps = {
        path: int(path.name.removeprefix(PREFIX))
        for path in directory.iterdir()
        if path.name.startswith(PREFIX) and path.name.removeprefix(PREFIX).isdigit()
    }
    return [_read(path, step) for path, step in sorted(steps.items(), key=lambda each: each[1])]


def mark(directory: Path) -> None:
    """Says that a checkpoint is whole."""
    temporary = directory / f".{MARKER}"
    temporary.write_text(json.dumps(_sizes(directory)), encoding="utf-8")
    temporary.replace(directory / MARKER)


def _read(path: Path, step: int) -> Checkpoint:
    state = _document(path / STATE)
    return Checkpoint(path, step, _sizes(path), _document(path / MARKER), state or {})


def _sizes(directory: Path) -> dict[str, int]:
    return {
        str(path.relative_to(directory)): path.stat().st_size
        for path in sorted(directory.rglob("*"))
        if path.is_file() and not path.name.endswith(MARKER)
    }


def _document(path: Path) -> dict[str, Any] | None:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None
