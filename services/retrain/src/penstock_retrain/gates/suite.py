"""A suite: which examples are asked, and what the answers have to show. Pure.

suite: triage-golden
about: What the model knew must not be forgotten.
examples: {file: ../tickets.jsonl, fields: {id: ticket_id}, count: 300}
answers: {max_tokens: 48, batch: 32}
variants:
  - {name: typos, kind: typos, rate: 0.03, seed: 7}
slices:
  urgent: {expected.priority: urgent}
rules:
  - {metric: exact_match, at_least: 0.8}
  - {metric: exact_match, no_worse_by: 0.03}
  - {metric: exact_match, slice: typos, no_worse_by: 0.1, than: original}
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from penstock_retrain.gates.examples import ORIGINAL
from penstock_retrain.gates.metrics.catalogue import CATALOGUE
from penstock_retrain.gates.metrics.declared import Declared, Metric, Scale
from penstock_retrain.gates.metrics.json_valid import JsonSchema

__all__ = ["FIELDS", "Rule", "Source", "Suite", "Than", "Variant", "faults_of", "metric_of"]

# What an example may have, as lines of a file name it.
FIELDS = ("id", "text", "messages", "prompt", "expected", "schema", "forbidden", "labels")

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]


class Than(StrEnum):
    """What a candidate's answer is compared with."""

    CHAMPION = "champion"  # the champion's answer to the same example
    ORIGINAL = "original"  # the candidate's own to the example that a variant was made of


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Source(_Part):
    """Where examples come from.

    Attributes:
        file: JSON lines, relative to the suite.
        split: Instead: rows of the job's dataset that no training saw (`golden`), or that it was
            watched on (`validation`).
        fields: By our name of a field (id, text, messages, prompt, expected, schema, forbidden,
            labels) the file's; fields that are named neither way are left alone once this is set.
        count: Only so many, the first of the file, or of the split by id.
    """

    file: str = ""
    split: Literal["", "golden", "validation"] = ""
    fields: Mapping[str, str] = Field(default_factory=dict)
    count: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _one(self) -> Self:
        if bool(self.file) == bool(self.split):
            raise ValueError("name either a file or a split")
        unknown = sorted(self.fields.keys() - set(FIELDS))
        if unknown:
            raise ValueError(f"fields.{unknown[0]}: there are {', '.join(FIELDS)}")
        if self.split and self.fields:
            raise ValueError("fields are of a file; a split has its own")
        return self


class Variant(_Part):
    """A slice that is made of the suite's examples; the same for the same seed.

    Attributes:
        name: The slice's.
        kind: typos: letters swapped, dropped, doubled or beside the right one; injection: an
            instruction of somebody else's put into the text, which an answer must not follow;
            personal_data: made-up addresses and numbers put into it.
        seed: Of the changes.
        rate: Of typos: letters hit, of all letters.
        count: Made of so many examples, chosen by the seed; None: of all.
    """

    name: Name
    kind: Literal["typos", "injection", "personal_data"]
    seed: int = 0
    rate: float = Field(default=0.03, gt=0, le=0.5)
    count: int | None = Field(default=None, ge=1)


class AnswerSettings(_Part):
    """How contenders are asked.

    Attributes:
        max_tokens: The longest answer.
        batch: Questions answered together; 1 to measure the time of each.
    """

    max_tokens: int = Field(default=256, ge=1, le=32_768)
    batch: int = Field(default=32, ge=1, le=1024)


class Rule(_Part):
    """What answers have to show. One of at_least, at_most and no_worse_by.

    Attributes:
        metric: Its name.
        options: The metric's.
        slice: Of which examples: all, a variant, or one of `slices`.
        at_least: The mean score is no less.
        at_most: The mean score is no more.
        no_worse_by: The mean is worse than that of `than` by no more, example for example; a
            negative one asks for a gain.
        than: What is compared with.
        within: Of amounts: the share of answers of at most so much takes the score's place.
        within_times: Of amounts: the share of answers of at most so many times that of `than`.
        cap: Of amounts: what is above counts as this; bounds need an end of the scale.
    """

    metric: str
    options: Mapping[str, Any] = Field(default_factory=dict)
    slice: str = ORIGINAL
    at_least: float | None = None
    at_most: float | None = None
    no_worse_by: float | None = Field(default=None, gt=-1)
    than: Than = Than.CHAMPION
    within: float | None = Field(default=None, gt=0)
    within_times: float | None = Field(default=None, gt=0)
    cap: float | None = Field(default=None, gt=0)

    @property
    def paired(self) -> bool:
        """Whether two answers to an example are compared."""
        return self.no_worse_by is not None or self.within_times is not None

    @property
    def declared(self) -> Declared:
        """The metric's declaration."""
        return CATALOGUE[self.metric]

    @property
    def yes_no(self) -> bool:
        """Whether single scores are 0 or 1."""
        counted = self.within is not None or self.within_times is not None
        return counted or self.declared.scale is Scale.YES_NO

    @property
    def more_is_better(self) -> bool:
        """Of the scores that are judged."""
        return (
            self.declared.more_is_better
            or self.within is not None
            or (self.within_times is not None)
        )


class Suite(_Part):
    """A suite as it was written.

    Attributes:
        suite: Its name.
        about: What it is for, one line.
        examples: Where they come from.
        answers: How contenders are asked.
        schema_: What every answer satisfies that has no schema of its own (`schema`).
        variants: Slices made of the examples.
        slices: By name, what an example must have: `pool`, `label.NAME` or `expected.FIELD`.
        rules: What answers have to show; all of it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    suite: Name
    about: str = ""
    examples: Source
    answers: AnswerSettings = AnswerSettings()
    schema_: JsonSchema | None = Field(default=None, alias="schema")
    variants: tuple[Variant, ...] = ()
    slices: Mapping[str, Mapping[str, str]] = Field(default_factory=dict)
    rules: tuple[Rule, ...] = Field(min_length=1)


Fault = tuple[tuple[int | str, ...], str]


def metric_of(rule: Rule) -> Metric:
    """The metric of a rule that has no faults."""
    return TypeAdapter(rule.declared.kind).validate_python(dict(rule.options))


def faults_of(suite: Suite) -> Iterator[Fault]:
    """What does not fit together: where in the document, what is wrong and what to do."""
    names = [variant.name for variant in suite.variants]
    for index, name in enumerate(names):
        if name in names[:index] or name in suite.slices or name == ORIGINAL:
            yield ("variants", index, "name"), f"{name} is another slice already; rename one"
    for name, wanted in suite.slices.items():
        if name == ORIGINAL:
            yield ("slices", name), "all examples are a slice of that name already; rename it"
        for key in wanted:
            if key != "pool" and not key.startswith(("label.", "expected.")):
                yield ("slices", name, key), "write pool, label.NAME or expected.FIELD"
    known = [ORIGINAL, *names, *suite.slices]
    for index, rule in enumerate(suite.rules):
        for field, message in _of_rule(rule, suite, known):
            yield ("rules", index, *field), message


def _of_rule(rule: Rule, suite: Suite, known: list[str]) -> Iterator[Fault]:
    if rule.slice not in known:
        yield ("slice",), f"there is no slice {rule.slice!r}; there are {', '.join(known)}"
    if rule.metric not in CATALOGUE:
        close = difflib.get_close_matches(rule.metric, CATALOGUE, n=1)
        hint = f"did you mean {close[0]}?" if close else "see: penstock gates list"
        yield ("metric",), f"there is no metric {rule.metric!r}; {hint}"
        return
    asked = [rule.at_least, rule.at_most, rule.no_worse_by]
    if sum(each is not None for each in asked) != 1:
        yield (), "name one of at_least, at_most and no_worse_by"
    if rule.than is Than.ORIGINAL and rule.slice not in [v.name for v in suite.variants]:
        yield ("than",), "only a variant has an original; name its slice, or compare with champion"
    yield from _of_options(rule)
    yield from _of_scale(rule, suite)


def _of_options(rule: Rule) -> Iterator[Fault]:
    known = [each.name for each in dataclasses.fields(rule.declared.kind)]  # type: ignore[arg-type]  # every metric is a dataclass
    for name in rule.options:
        if name not in known:
            yield ("options", name), f"{rule.metric} takes {', '.join(known) or 'no options'}"
    try:
        metric_of(rule)
    except ValidationError as error:
        for each in error.errors():
            if each["type"] != "unexpected_keyword_argument":
                message = str(each["msg"]).removeprefix("Value error, ")
                yield ("options", *each["loc"]), message


def _of_scale(rule: Rule, suite: Suite) -> Iterator[Fault]:
    amount = rule.declared.scale is Scale.AMOUNT
    transformed = [
        name for name in ("within", "within_times", "cap") if getattr(rule, name) is not None
    ]
    if not amount and transformed:
        yield (transformed[0],), f"{rule.metric} is no amount; leave it out"
    if amount and len(transformed) != 1:
        yield (), f"{rule.metric} has no upper end: name one of within, within_times and cap"
    if rule.within_times is not None and rule.no_worse_by is not None:
        yield ("no_worse_by",), "within_times compares already; say at_least which share"
    if rule.more_is_better and rule.at_most is not None:
        yield ("at_most",), "more is better here; write at_least"
    if not rule.more_is_better and rule.at_least is not None:
        yield ("at_least",), "less is better here; write at_most"
    whole = rule.yes_no or rule.declared.scale is Scale.SHARE
    if whole and rule.at_least is not None and not 0 < rule.at_least < 1:
        yield ("at_least",), "a share that examples can show lies between 0 and 1, without them"
    if rule.cap is not None and rule.at_most is not None and rule.at_most >= rule.cap:
        yield ("cap",), "it must be above at_most: everything counts as at most the cap"
    if rule.metric == "latency_s" and suite.answers.batch != 1:
        yield ("metric",), "latency_s needs answers.batch: 1, in a suite of its own if need be"
