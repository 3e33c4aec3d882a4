"""Whether answers rest on the passages that came with the question: lexical proxies.

They compare words, not meaning: an answer in other words scores low though it is right, and one
that turns a passage's words round scores high. Good for noticing change, not for judging an answer.
"""

from __future__ import annotations

from collections.abc import Iterable

from penstock_drift.records.values import Kind, SignalType
from penstock_drift.signals.declared import Declaration, Origin
from penstock_drift.signals.facts import Facts

__all__ = ["SIGNALS"]

# Shorter words are mostly grammar; those with a digit are figures, which matter most.
MIN_LETTERS = 4


def context_relevance(facts: Facts) -> float | None:
    """The share of the question's content words that the passages have."""
    return _share(facts.prompt_words, facts.passage_words)


def groundedness(facts: Facts) -> float | None:
    """The share of the answer's content words that the passages or the question have."""
    if not facts.passage_words:
        return None
    return _share(facts.words, facts.passage_words.union(facts.prompt_words))


def passages(facts: Facts) -> float | None:
    """How many passages came with the question."""
    return float(len(facts.question.passages)) if facts.question else None


def retrieval_score(facts: Facts) -> float | None:
    """The retriever's best score, in its own unit."""
    if facts.question is None:
        return None
    scores = [p.score for p in facts.question.passages if p.score is not None]
    return max(scores, default=None)


def _share(words: Iterable[str], known: frozenset[str]) -> float | None:
    content = {w for w in words if len(w) >= MIN_LETTERS or not w.isalpha()}
    if not content or not known:
        return None
    return len(content & known) / len(content)


SIGNALS = (
    Declaration(
        "context_relevance", SignalType.BOUNDED, Kind.INPUT,
        "Share of the question's words in its passages (a lexical proxy).",
        origin=Origin.REQUEST, higher_is_worse=False, draw=context_relevance,
    ),
    Declaration(
        "groundedness", SignalType.BOUNDED, Kind.OUTPUT,
        "Share of the answer's words in passages or question (a lexical proxy).",
        origin=Origin.JOINED, higher_is_worse=False, draw=groundedness,
    ),
    Declaration(
        "passages", SignalType.NUMBER, Kind.INPUT, "Passages that come with a question.",
        unit="passages", origin=Origin.REQUEST, draw=passages,
    ),
    Declaration(
        "retrieval_score", SignalType.NUMBER, Kind.INPUT, "The retriever's best score.",
        origin=Origin.REQUEST, higher_is_worse=False, draw=retrieval_score,
    ),
)  # fmt: skip
