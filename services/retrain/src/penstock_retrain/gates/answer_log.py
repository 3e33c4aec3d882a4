"""Answers that were given already: a file of JSON lines, one for each batch, only ever added to."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from penstock_retrain.gates.examples import Answer, Batch

__all__ = ["AnswerLog"]


class AnswerLog:
    """What a run that was killed leaves to the next one.

    A line is a whole batch: after a death a batch is either there or asked again as it was, so that
    answers do not depend on where the run was killed. Half a line, of a writer that was killed, is
    passed over.

    Args:
        path: The file; made with its directory when there is something to keep.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._batches: dict[str, dict[str, Answer]] = {}
        if path.exists():
            # By line ends alone: an answer's text may have other separators.
            for line in path.read_bytes().split(b"\n"):
                found = _parsed(line)
                if found is not None:
                    self._batches[found[0]] = found[1]

    def get(self, batch: Batch) -> dict[str, Answer] | None:
        """A batch's answers by the questions' digests; None where it was not answered."""
        found = self._batches.get(batch.id)
        if found is None or found.keys() != {each.digest for each in batch.questions}:
            return None
        return found

    def keep(self, batch: Batch, answers: dict[str, Answer]) -> None:
        """Keeps a batch's answers. Blocks briefly."""
        self._batches[batch.id] = answers
        said = {digest: dataclasses.asdict(answer) for digest, answer in answers.items()}
        line = json.dumps(
            {"batch": batch.id, "contender": batch.contender.name, "answers": said},
            ensure_ascii=False,
        )
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # Begins on a line of its own, also after half a line.
        with self._path.open("ab") as file:
            file.write(f"\n{line}\n".encode())


def _parsed(line: bytes) -> tuple[str, dict[str, Answer]] | None:
    try:
        found: dict[str, Any] = json.loads(line)
        answers = {str(k): Answer(**each) for k, each in found["answers"].items()}
        return str(found["batch"]), answers
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
