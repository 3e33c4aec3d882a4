"""Follows the histories while they are written, to tell when the system has recovered."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.chaos.recovery import Answer, first_answers

KEPT = 20_000


class Tail:
    """Lines of a file that grows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._position = 0

    def read(self) -> Iterator[dict[str, Any]]:
        """The complete lines since the last call."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._position)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._position += len(line)
                yield json.loads(line)


class Watch:
    """What was sent and what was answered so far."""

    def __init__(self, sent: Path, seen: Path) -> None:
        self._sent_tail = Tail(sent)
        self._seen_tail = Tail(seen)
        self._open: dict[str, float] = {}
        self._answers: deque[Answer] = deque(maxlen=KEPT)
        self._early: dict[str, tuple[float, int]] = {}
        self.sent = 0
        self.answered = 0

    @property
    def open(self) -> int:
        """Requests that have no answer yet."""
        return len(self._open)

    def refresh(self) -> None:
        """Takes in what was written since."""
        for line in self._sent_tail.read():
            if line["event"] == "sent" and not line["repeat"]:
                self.sent += 1
                self._open[line["id"]] = line["at"]
                if line["id"] in self._early:
                    self._answer(line["id"], *self._early.pop(line["id"]))
        for line in self._seen_tail.read():
            if line["topic"] == "responses" and "json" in line:
                id_ = json.loads(line["json"]).get("idempotency_key", "")
                if id_ in self._open:
                    self._answer(id_, line["at"], line["partition"])
                else:
                    self._early[id_] = (line["at"], line["partition"])

    def _answer(self, id_: str, at: float, partition: int) -> None:
        self.answered += 1
        self._answers.append(Answer(self._open.pop(id_), at, partition))

    def recovered(self, after: float, partitions: int) -> bool:
        """Whether every partition answered a request that was sent after a moment."""
        return len(first_answers(list(self._answers), after)) == partitions
