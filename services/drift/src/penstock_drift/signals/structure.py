"""Whether answers have the form that was asked for."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from typing import Any

from jsonschema import Draft202012Validator, SchemaError, ValidationError, validators
from referencing import Registry
from referencing.exceptions import Unresolvable

from penstock_drift.records.values import Kind, SignalType
from penstock_drift.signals.declared import Declaration, Origin
from penstock_drift.signals.facts import Facts

__all__ = ["SIGNALS", "satisfies"]

# References that one check may follow: schemas are the clients', and a few lines of them can
# refer to each other exponentially often.
MAX_REFERENCES = 2000
# Longer is prose, not a class.
MAX_CATEGORY = 32
MAX_CATEGORY_WORDS = 3
MAX_KEYS = 64  # characters of an object's keys


class _TooMuch(Exception):
    """A check that would take too long was given up."""


class _Budget:
    """Counts the references that a check follows."""

    def __init__(self) -> None:
        self.left = MAX_REFERENCES

    def follow(
        self, validator: Any, reference: Any, instance: Any, schema: Any
    ) -> Iterator[ValidationError]:
        """`$ref`, until the budget is used up."""
        self.left -= 1
        if self.left < 0:
            raise _TooMuch
        yield from Draft202012Validator.VALIDATORS["$ref"](validator, reference, instance, schema)


# A pattern is a program of the client's: some take exponential time. They are left unchecked.
_SKIPPED = ("pattern", "patternProperties", "$dynamicRef")


@functools.lru_cache(maxsize=256)
def _checker(schema: str) -> tuple[Any, _Budget] | None:
    """A checker for a schema's JSON; None where it is no schema."""
    document, budget = json.loads(schema), _Budget()
    rules: dict[str, Any] = dict(Draft202012Validator.VALIDATORS)
    for keyword in _SKIPPED:
        rules.pop(keyword, None)
    rules["$ref"] = budget.follow
    try:
        Draft202012Validator.check_schema(document)
    except (SchemaError, RecursionError):
        return None
    # An empty registry: a reference to elsewhere is an error, not a download.
    return validators.create(Draft202012Validator.META_SCHEMA, rules)(
        document, registry=Registry()
    ), budget


def satisfies(instance: Any, schema: Mapping[str, Any]) -> bool | None:
    """Whether a JSON value satisfies a schema (2020-12); None where that cannot be told.

    Patterns are not looked at; a schema that is none, refers elsewhere or takes more than
    `MAX_REFERENCES` references tells nothing.
    """
    checker = _checker(json.dumps(schema, sort_keys=True))
    if checker is None:
        return None
    validator, budget = checker
    budget.left = MAX_REFERENCES
    try:
        return bool(validator.is_valid(instance))
    except (_TooMuch, RecursionError, Unresolvable):
        return None


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
