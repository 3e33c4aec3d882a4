"""ROUGE-L."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

from penstock_retrain.gates.examples import Answer, Example
from penstock_retrain.gates.metrics.parsing import as_text, words

__all__ = ["RougeL"]

# The table of two texts has the product of their lengths: beyond this the rest is not looked at.
MAX_WORDS = 2000


@dataclasses.dataclass(frozen=True)
class RougeL:
    """F1 of the longest common subsequence of words, in their order and with gaps.

    Lin, "ROUGE: a package for automatic evaluation of summaries", ACL 2004 workshop, section 3.1,
    with beta = 1; words without stemming.
    """

    name: ClassVar[str] = "rouge_l"

    def score(self, example: Example, answer: Answer) -> float | None:
        """See `Metric`."""
        if example.expected is None:
            return None
        wanted = words(as_text(example.expected))[:MAX_WORDS]
        found = words(answer.text)[:MAX_WORDS]
        if not wanted or not found:
            return float(wanted == found)
        return 2 * _common(wanted, found) / (len(wanted) + len(found))


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    """The length of the longest common subsequence."""
    row = [0] * (len(other) + 1)
    for word in one:
        before = 0
        for at, each in enumerate(other, start=1):
            above = row[at]
            row[at] = before + 1 if word == each else max(above, row[at - 1])
            before = above
    return row[-1]
