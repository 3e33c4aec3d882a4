"""Contenders, suites and answers of tests: everything real but the models."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from penstock_retrain.gates.answering import Answering
from penstock_retrain.gates.examples import Answer, Batch, Contender

CHAMPION = Contender("champion", "c" * 64, Path("/champion"))
CANDIDATE = Contender("candidate", "d" * 64, Path("/candidate"))

SUITE = """
suite: sums
about: Sums of small numbers.
examples: {file: sums.jsonl}
answers: {max_tokens: 8, batch: 10}
variants:
  - {name: injected, kind: injection, seed: 1, count: 50}
slices:
  even: {label.kind: even}
rules:
  - {metric: exact_match, at_least: 0.8}
  - {metric: exact_match, no_worse_by: 0.05}
  - {metric: exact_match, slice: even, no_worse_by: 0.2}
  - {metric: no_forbidden, slice: injected, at_least: 0.9}
"""


def write_suite(folder: Path, text: str = SUITE, count: int = 200) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        {
            "id": f"s{n}",
            "text": f"What is {n} plus {n}?",
            "expected": str(2 * n),
            "labels": {"kind": "even" if n % 2 == 0 else "odd"},
        }
        for n in range(count)
    ]
    (folder / "sums.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "sums.yaml").write_text(text)
    return folder / "sums.yaml"


def sum_of(batch: Batch, index: int) -> int:
    """The first number of a question, doubled."""
    words = batch.questions[index].messages[-1].content.split()
    return 2 * next(int(word) for word in words if word.isdigit())


def right(batch: Batch, index: int) -> str:
    return str(sum_of(batch, index))


class Told:
    """Answers by a rule for each contender; counts what it was asked, may die on the way."""

    def __init__(
        self,
        rules: dict[str, Callable[[Batch, int], str]] | None = None,
        die_after: int | None = None,
    ) -> None:
        self.rules = rules or {}
        self.asked: list[Batch] = []
        self.opened_for: list[Sequence[Contender]] = []
        self._die_after = die_after

    @contextlib.asynccontextmanager
    async def opened(self, contenders: Sequence[Contender]) -> AsyncIterator[Answering]:
        self.opened_for.append(contenders)
        yield self

    async def ask(self, batch: Batch) -> Sequence[Answer]:
        if len(self.asked) == self._die_after:
            raise ConnectionResetError("the test's end")
        self.asked.append(batch)
        say = self.rules.get(batch.contender.name, right)
        count = len(batch.questions)
        return [Answer(say(batch, n), 10, 2, 0.5, count) for n in range(count)]
