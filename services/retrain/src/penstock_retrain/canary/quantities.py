"""What can be compared of answers: read from a response, or from what somebody said of it. Pure.

A new quantity is a function and an entry of `QUANTITIES`.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from penstock.labels import same

__all__ = ["QUANTITIES", "RESPONSE", "Answer", "Opinion", "Quantity"]

# The source of what every answer has: values of one source come together.
RESPONSE = "response"


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """A terminal response of a client's request, or of a shadow copy of one.

    Attributes:
        request_id: The client's request.
        variant: Who answered.
        route_version: The route's version by which the variant was chosen.
        published_ms: When the request was published, milliseconds since 1970.
        unit: What keeps its variant from one request to the next; empty: the request alone.
        answered: Whether there is an answer.
        failed: Whether the platform owes one: it failed or expired.
        cached: Answered from the cache: it says nothing of the variant.
        text: The answer.
        total_s: From publication to the response.
        completion_tokens: Tokens of the answer.
        cost_usd: What its tokens cost; None where nobody knows.
    """

    request_id: str
    variant: str
    route_version: int
    published_ms: int
    unit: str = ""
    answered: bool = True
    failed: bool = False
    cached: bool = False
    text: str = ""
    total_s: float = 0.0
    completion_tokens: int = 0
    cost_usd: float | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Opinion:
    """What somebody said of an answer; what is None was not said.

    Attributes:
        request_id: The request that was answered.
        label: The right answer's class, or its fields as a JSON object.
        score: In [0, 1], 1 is best.
        correction: The text that the answer should have been.
        value: What the answer was worth, in `value_unit`.
        value_unit: Its unit.
    """

    request_id: str
    label: str | None = None
    score: float | None = None
    correction: str | None = None
    value: float | None = None
    value_unit: str = ""


@dataclasses.dataclass(frozen=True)
class Reading:
    """How a policy wants a quantity read.

    Attributes:
        label_field: The field of a JSON answer that a plain label is for; empty: any.
        value_unit: The unit whose values count.
    """

    label_field: str = ""
    value_unit: str = ""


Draw = Callable[[Answer, Opinion | None, Reading], float | None]


@dataclasses.dataclass(frozen=True)
class Quantity:
    """Something that can be compared.

    Attributes:
        draw: The value; None where the answer has none.
        higher_is_better: Of values.
        source: Of the values that come together; empty: the quantity alone.
        from_opinion: Whether somebody has to say something of the answer.
        paired: Whether what was said of one answer to a prompt tells the value of another one.
        unit_scale: Whether values are in [0, 1] by themselves.
    """

    draw: Draw
    higher_is_better: bool = True
    source: str = ""
    from_opinion: bool = False
    paired: bool = False
    unit_scale: bool = False


def _accuracy(answer: Answer, opinion: Opinion | None, reading: Reading) -> float | None:
    """Whether the answer is what the label says, or word for word the correction."""
    if opinion is None or not answer.answered:
        return None
    if opinion.label is not None:
        return float(_is(answer.text, opinion.label, reading.label_field))
    if opinion.correction is not None:
        return float(same(answer.text, opinion.correction))
    return None


def _is(text: str, label: str, field: str) -> bool:
    """As drift's `label_error` has it: the label itself, or a value of an answer that is JSON."""
    given, wanted = _object(text), _object(label)
    if wanted is not None:
        have = given or {}
        return all(same(have.get(name), value) for name, value in wanted.items())
    if given is None:
        return not field and same(text, label)
    values = [given.get(field)] if field else list(given.values())
    return any(same(value, label) for value in values)


def _object(text: str) -> dict[str, Any] | None:
    if not text.lstrip().startswith("{"):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and found else None


def _score(answer: Answer, opinion: Opinion | None, reading: Reading) -> float | None:
    return opinion.score if opinion is not None else None


def _value(answer: Answer, opinion: Opinion | None, reading: Reading) -> float | None:
    if opinion is None or opinion.value_unit != reading.value_unit:
        return None
    return opinion.value


def _error(answer: Answer, opinion: Opinion | None, reading: Reading) -> float | None:
    return float(answer.failed)


def _latency(answer: Answer, opinion: Opinion | None, reading: Reading) -> float | None:
    # What never came took longer than anything.
    return math.inf if answer.failed else answer.total_s


def _tokens(answer: Answer, opinion: Opinion | None, reading: Reading) -> float | None:
    return float(answer.completion_tokens)


def _cost(answer: Answer, opinion: Opinion | None, reading: Reading) -> float | None:
    return answer.cost_usd


QUANTITIES: Mapping[str, Quantity] = {
    "accuracy": Quantity(_accuracy, from_opinion=True, paired=True, unit_scale=True),
    "score": Quantity(_score, from_opinion=True, unit_scale=True),
    "value": Quantity(_value, from_opinion=True),
    "error": Quantity(_error, higher_is_better=False, source=RESPONSE, unit_scale=True),
    "latency_s": Quantity(_latency, higher_is_better=False, source=RESPONSE),
    "completion_tokens": Quantity(_tokens, higher_is_better=False, source=RESPONSE),
    # Not with the others: where no price is known there is none.
    "cost_usd": Quantity(_cost, higher_is_better=False),
}
