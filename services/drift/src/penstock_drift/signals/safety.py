"""Personal data, abuse, and attempts to turn the model against its instructions.

Hits of pattern packs: made to see a rate change, not to judge a single text.
"""

from __future__ import annotations

from penstock.personal_data import PERSONAL_DATA_VERSION, has_personal_data
from penstock_drift.records.values import Kind, SignalType
from penstock_drift.signals.declared import Declaration, Origin
from penstock_drift.signals.facts import MAX_TEXT, Facts
from penstock_drift.signals.packs import pack

__all__ = ["SIGNALS"]


def pii(facts: Facts) -> float | None:
    """Whether the answer holds personal data."""
    return float(has_personal_data(facts.text)) if facts.text else None


def pii_prompt(facts: Facts) -> float | None:
    """Whether the question does."""
    return float(has_personal_data(facts.prompt)) if facts.prompt else None


def toxicity(facts: Facts) -> float | None:
    """Whether the answer holds abuse."""
    return float(pack("toxic").found_in(facts.text, facts.word_set)) if facts.text else None


def toxicity_prompt(facts: Facts) -> float | None:
    """Whether the question does."""
    return (
        float(pack("toxic").found_in(facts.prompt, facts.prompt_word_set)) if facts.prompt else None
    )


def injection(facts: Facts) -> float | None:
    """How much the question, or a passage, looks like an attempt to redirect the model."""
    if facts.question is None or facts.prompt is None:
        return None
    score, left = pack("injection").score(facts.prompt, facts.prompt_word_set), MAX_TEXT
    for passage in facts.question.passages:
        if left <= 0:
            break
        text = passage.text[:left]
        score = max(score, pack("injection").score(text, facts.passage_words))
        left -= len(passage.text)
    return score


SIGNALS = (
    Declaration(
        "pii", SignalType.BINARY, Kind.OUTPUT, "Answers with personal data in them.",
        higher_is_worse=True, measure=PERSONAL_DATA_VERSION, draw=pii,
    ),
    Declaration(
        "pii_prompt", SignalType.BINARY, Kind.INPUT, "Questions with personal data in them.",
        origin=Origin.REQUEST, measure=PERSONAL_DATA_VERSION, draw=pii_prompt,
    ),
    Declaration(
        "toxicity", SignalType.BINARY, Kind.OUTPUT, "Answers with abuse in them.",
        higher_is_worse=True, measure=pack("toxic").version, draw=toxicity,
    ),
    Declaration(
        "toxicity_prompt", SignalType.BINARY, Kind.INPUT, "Questions with abuse in them.",
        origin=Origin.REQUEST, measure=pack("toxic").version, draw=toxicity_prompt,
    ),
    Declaration(
        "injection", SignalType.BOUNDED, Kind.INPUT,
        "How much questions and passages look like instructions against the instructions.",
        origin=Origin.REQUEST, higher_is_worse=True, measure=pack("injection").version,
        draw=injection,
    ),
)  # fmt: skip
