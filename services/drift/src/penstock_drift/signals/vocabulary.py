"""Which words are used: each distinct word of a text counts once, in a bin by its hash.

Once, since words come in bursts: whoever writes "invoice" writes it again, and counts of all
occurrences would be far from the independent draws that detectors of counts assume.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable

from penstock_drift.records.values import Counts, Kind, SignalType
from penstock_drift.signals.declared import Declaration, Origin
from penstock_drift.signals.facts import Facts

__all__ = ["BINS", "SIGNALS"]

BINS = 64
# A longer text says more, but is no more evidence of what words its writers use.
MAX_WORDS = 400


def prompt_words(facts: Facts) -> Counts | None:
    """Bins of the question's words."""
    return _counts(facts.prompt_words)


def answer_words(facts: Facts) -> Counts | None:
    """Bins of the answer's words."""
    return _counts(facts.words)


def _counts(words: Iterable[str]) -> Counts | None:
    distinct = list(dict.fromkeys(words))[:MAX_WORDS]
    # crc32, since Python's own hash differs between processes.
    bins = Counter(zlib.crc32(word.encode("utf-8", "replace")) % BINS for word in distinct)
    return tuple(sorted(bins.items())) or None


SIGNALS = (
    Declaration(
        "prompt_words", SignalType.COUNTS, Kind.INPUT, "Which words questions use.",
        origin=Origin.REQUEST, size=BINS, draw=prompt_words,
    ),
    Declaration(
        "answer_words", SignalType.COUNTS, Kind.OUTPUT, "Which words answers use.",
        size=BINS, draw=answer_words,
    ),
)  # fmt: skip
