"""Whether answers have the form that was asked for."""

from __future__ import annotations

from penstock_drift.records.values import Kind, SignalType
from penstock_drift.signals.declared import Declaration, Origin
from penstock_drift.signals.facts import Facts
from penstock_drift.signals.schemas import satisfies

__all__ = ["SIGNALS"]

# Longer is prose, not a class.
MAX_CATEGORY = 32
MAX_CATEGORY_WORDS = 3
MAX_KEYS = 64  # characters of an object's keys


def invalid_structure(facts: Facts) -> float | None:
    """Whether an answer that had to satisfy a schema does not."""
    if not facts.answered or facts.question is None or facts.question.schema is None:
        return None
    if facts.json is None and facts.answer.text.strip() != "null":
        return 1.0
    valid = satisfies(facts.json, facts.question.schema)
    return None if valid is None else float(not valid)


def json_answer(facts: Facts) -> float | None:
    """Whether the answer is a JSON object or array."""
    return float(isinstance(facts.json, dict | list)) if facts.answered else None


def json_keys(facts: Facts) -> str | None:
    """The keys of an answer that is a JSON object, in their order."""
    if not isinstance(facts.json, dict):
        return None
    return ",".join(facts.json)[:MAX_KEYS] or None


def answer_class(facts: Facts) -> str | None:
    """What a classifying model says: a short answer, or the first short text of a JSON object."""
    found = facts.json
    if isinstance(found, dict):
        texts = (value for value in found.values() if isinstance(value, str))
        said = next(texts, "")
    elif found is None:
        said = facts.text or ""
    else:
        return None
    said = said.strip().casefold()
    if not said or len(said) > MAX_CATEGORY or len(said.split()) > MAX_CATEGORY_WORDS:
        return None
    return said


SIGNALS = (
    Declaration(
        "invalid_structure", SignalType.BINARY, Kind.OUTPUT,
        "Answers that do not satisfy the schema that was asked for.",
        origin=Origin.JOINED, higher_is_worse=True, draw=invalid_structure,
    ),
    Declaration(
        "json_answer", SignalType.BINARY, Kind.OUTPUT, "Answers that are JSON.", draw=json_answer
    ),
    Declaration(
        "json_keys", SignalType.CATEGORY, Kind.OUTPUT, "Keys of answers that are JSON objects.",
        draw=json_keys,
    ),
    Declaration(
        "answer_class", SignalType.CATEGORY, Kind.OUTPUT,
        "What short answers, or a JSON object's first text, say.",
        draw=answer_class,
    ),
)  # fmt: skip
