"""F1 of words."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import ClassVar

from penstock_retrain.gates.examples import Answer, Example
from penstock_retrain.gates.metrics.parsing import as_text, words

__all__ = ["TokenF1"]


@dataclasses.dataclass(frozen=True)
class TokenF1:
    """The harmonic mean of precision and recall of an answer's words, repeats counted.

    As SQuAD measures answers (Rajpurkar et al., "SQuAD: 100,000+ questions for machine
    comprehension of text", EMNLP 2016, section 6.1), but that articles count.
    """

    name: ClassVar[str] = "token_f1"

    def score(self, example: Example, answer: Answer) -> float | None:
        """See `Metric`."""
        if example.expected is None:
            return None
        wanted, found = Counter(words(as_text(example.expected))), Counter(words(answer.text))
        if not wanted or not found:
            return float(wanted == found)
        return 2 * (wanted & found).total() / (wanted.total() + found.total())
