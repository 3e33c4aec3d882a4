"""Answers that were given before, for the scripted engine to give again.

A file of JSON lines: `{"prompt": "...", "answer": "..."}`, and where an adapter says something
else, `"adapted": "..."`. The prompt is a request's own, or the last turn of its conversation.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from penstock.jsonlines import split_lines
from penstock_inference.engines.generation import Generation

__all__ = ["Recording", "RecordingError"]

# A word with the space before it, as the scripted engine's other tokens are.
_TOKEN = re.compile(r"\s*\S+|\s+$")
_FIELDS = {"prompt", "answer", "adapted"}


class RecordingError(Exception):
    """The file cannot be used; names the line and the field."""


class Recording:
    """Answers by prompt, each for the base model and for whatever adapter.

    Args:
        path: The file; it is read whole.

    Raises:
        RecordingError: It cannot be read, or a line of it is no answer.
    """

    def __init__(self, path: Path) -> None:
        self._answers: dict[str, tuple[str, str]] = {}
        try:
            lines = split_lines(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise RecordingError(f"{path} cannot be read: {error}") from error
        for number, line in enumerate(lines, 1):
            if line.strip():
                said = _line(line, f"{path}:{number}")
                answer = said["answer"]
                self._answers[said["prompt"]] = answer, said.get("adapted", answer)

    def tokens(self, generation: Generation) -> Sequence[str] | None:
        """The answer in tokens; None where the prompt is not recorded."""
        asked = generation.messages[-1].content if generation.messages else generation.prompt
        found = self._answers.get(asked)
        return None if found is None else _TOKEN.findall(found[bool(generation.adapter)])


def _line(line: str, place: str) -> dict[str, str]:
    try:
        said = json.loads(line)
    except ValueError as error:
        raise RecordingError(f"{place}: no JSON: {error}") from error
    if not isinstance(said, dict) or not all(isinstance(each, str) for each in said.values()):
        raise RecordingError(f"{place}: an object of texts is expected")
    if {"prompt", "answer"} - said.keys() or said.keys() - _FIELDS:
        raise RecordingError(f"{place}: it needs prompt and answer, and may have adapted")
    return said
