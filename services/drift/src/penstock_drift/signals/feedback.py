"""What people and golden sets say of answers: the only signals of quality.

A golden request is an ordinary one with the label `golden`, whose right answer is known and comes
as feedback. It says how good the model is on questions that never change, and nothing of users.
"""

from __future__ import annotations

from collections import Counter

from penstock.labels import same
from penstock_drift.records.values import Kind, SignalType
from penstock_drift.signals.declared import Declaration, Origin
from penstock_drift.signals.facts import MAX_TEXT, Facts, parsed

__all__ = ["GOLDEN", "SIGNALS"]

# The label of requests of a golden set; its value names the set.
GOLDEN = "golden"
THUMBS = 0.5


def label_error(facts: Facts) -> float | None:
    """Whether the answer is another one than the label."""
    loss = None if _golden(facts) else _label_loss(facts)
    return None if loss is None else float(loss > 0)


def label_loss(facts: Facts) -> float | None:
    """The share of a JSON label's fields that the answer has otherwise, or not at all."""
    if _golden(facts) or facts.opinion is None or facts.opinion.label is None:
        return None
    return _label_loss(facts) if isinstance(parsed(facts.opinion.label), dict) else None


def correction_loss(facts: Facts) -> float | None:
    """How far the answer's words are from the correction's."""
    return None if _golden(facts) else _correction_loss(facts)


def score(facts: Facts) -> float | None:
    """The score that was given."""
    return None if _golden(facts) or facts.opinion is None else facts.opinion.score


def thumbs_down(facts: Facts) -> float | None:
    """Whether the score is below a half."""
    given = score(facts)
    return None if given is None else float(given < THUMBS)


def golden_loss(facts: Facts) -> float | None:
    """The loss on a golden request, by its label, its correction or one less its score."""
    if not _golden(facts) or facts.opinion is None:
        return None
    if facts.opinion.score is not None:
        return 1 - facts.opinion.score
    loss = _label_loss(facts)
    return _correction_loss(facts) if loss is None else loss


def _golden(facts: Facts) -> bool:
    return GOLDEN in facts.answer.labels


def _label_loss(facts: Facts) -> float | None:
    """0 where the answer is the label, or one of an object's values is; else 1, or a share."""
    if facts.opinion is None or facts.opinion.label is None or not facts.answered:
        return None
    wanted, given = parsed(facts.opinion.label), facts.json
    if isinstance(wanted, dict) and wanted:
        have = given if isinstance(given, dict) else {}
        wrong = sum(1 for field, value in wanted.items() if not same(have.get(field), value))
        return wrong / len(wanted)
    if isinstance(given, dict):
        return float(not any(same(value, facts.opinion.label) for value in given.values()))
    return float(not same(facts.answer.text, facts.opinion.label))


def _correction_loss(facts: Facts) -> float | None:
    """One less the F1 of words, counted as often as they occur.

    Rajpurkar et al., "SQuAD: 100,000+ questions for machine comprehension of text" (EMNLP 2016),
    section 6.1.
    """
    if facts.opinion is None or facts.opinion.correction is None or not facts.answered:
        return None
    wanted = Counter(facts.opinion.correction[:MAX_TEXT].casefold().split())
    given = Counter((facts.text or "").casefold().split())
    shared = (wanted & given).total()
    if not shared:
        return float(bool(wanted or given))
    return 1 - 2 * shared / (wanted.total() + given.total())


SIGNALS = (
    Declaration(
        "label_error", SignalType.BINARY, Kind.QUALITY, "Answers that are not what the label says.",
        origin=Origin.FEEDBACK, higher_is_worse=True, draw=label_error,
    ),
    Declaration(
        "label_loss", SignalType.BOUNDED, Kind.QUALITY,
        "Share of a JSON label's fields that answers have wrong.",
        origin=Origin.FEEDBACK, higher_is_worse=True, draw=label_loss,
    ),
    Declaration(
        "correction_loss", SignalType.BOUNDED, Kind.QUALITY,
        "Distance of answers' words from the correction's.",
        origin=Origin.FEEDBACK, higher_is_worse=True, draw=correction_loss,
    ),
    Declaration(
        "score", SignalType.BOUNDED, Kind.QUALITY, "Scores that people give.",
        origin=Origin.FEEDBACK, higher_is_worse=False, draw=score,
    ),
    Declaration(
        "thumbs_down", SignalType.BINARY, Kind.QUALITY, "Scores below a half.",
        origin=Origin.FEEDBACK, higher_is_worse=True, draw=thumbs_down,
    ),
    Declaration(
        "golden_loss", SignalType.BOUNDED, Kind.QUALITY,
        "Loss on the golden set: the same questions, whose answers are known.",
        origin=Origin.FEEDBACK, higher_is_worse=True, draw=golden_loss,
    ),
)  # fmt: skip
