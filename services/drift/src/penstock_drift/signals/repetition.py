"""Whether answers go round in circles."""

from __future__ import annotations

import math
from collections import Counter

from penstock_drift.records.values import Kind, SignalType
from penstock_drift.signals.declared import Declaration
from penstock_drift.signals.facts import Facts

__all__ = ["SIGNALS"]

# Shorter answers repeat nothing worth telling.
MIN_WORDS = 12


def repetition(facts: Facts) -> float | None:
    """The share of word trigrams that have occurred before in the answer.

    One less the distinct ones over all: rep-n of Welleck et al., "Neural text generation with
    unlikelihood training" (ICLR 2020), section 6, for n = 3.
    """
    words = facts.words
    if len(words) < MIN_WORDS:
        return None
    grams = list(zip(words, words[1:], words[2:], strict=False))
    return 1 - len(set(grams)) / len(grams)


def word_entropy(facts: Facts) -> float | None:
    """Shannon entropy of the answer's words over the most that so many words can have."""
    words = facts.words
    if len(words) < MIN_WORDS:
        return None
    total = len(words)
    entropy = -sum(n / total * math.log(n / total) for n in Counter(words).values())
    return min(1.0, entropy / math.log(total))


SIGNALS = (
    Declaration(
        "repetition", SignalType.BOUNDED, Kind.OUTPUT,
        "Share of the answer's word trigrams that it has said before.",
        higher_is_worse=True, draw=repetition,
    ),
    Declaration(
        "word_entropy", SignalType.BOUNDED, Kind.OUTPUT,
        "Variety of the answer's words, 1 where all differ.",
        draw=word_entropy,
    ),
)  # fmt: skip
