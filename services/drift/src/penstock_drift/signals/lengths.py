"""How long prompts and answers are."""

from __future__ import annotations

from penstock_drift.records.values import Kind, SignalType
from penstock_drift.signals.declared import Declaration, Origin, Transform
from penstock_drift.signals.facts import Facts, Finish

__all__ = ["SIGNALS"]


def prompt_tokens(facts: Facts) -> float | None:
    """Tokens of the prompt, as the engine counted them; 0 means that nobody did."""
    return float(facts.answer.prompt_tokens) if facts.answer.prompt_tokens else None


def turns(facts: Facts) -> float | None:
    """Turns of the conversation up to the question."""
    return float(facts.question.turns) if facts.question else None


def completion_tokens(facts: Facts) -> float | None:
    """Tokens of the answer."""
    tokens = facts.answer.completion_tokens
    return float(tokens) if facts.answered and tokens is not None else None


def truncated(facts: Facts) -> float | None:
    """Whether the answer met its bound instead of its end."""
    return float(facts.answer.finish is Finish.LENGTH) if facts.answered else None


def empty(facts: Facts) -> float | None:
    """Whether the answer says nothing."""
    return float(not facts.answer.text.strip()) if facts.answered else None


_LOG = Transform.LOG
SIGNALS = (
    Declaration(
        "prompt_tokens", SignalType.NUMBER, Kind.INPUT, "Length of the prompt.",
        unit="tokens", transform=_LOG, draw=prompt_tokens,
    ),
    Declaration(
        "turns", SignalType.NUMBER, Kind.INPUT, "Turns of the conversation so far.",
        unit="turns", transform=_LOG, origin=Origin.REQUEST, draw=turns,
    ),
    Declaration(
        "completion_tokens", SignalType.NUMBER, Kind.OUTPUT, "Length of the answer.",
        unit="tokens", transform=_LOG, draw=completion_tokens,
    ),
    Declaration(
        "truncated", SignalType.BINARY, Kind.OUTPUT, "Answers cut off at max_tokens.",
        higher_is_worse=True, draw=truncated,
    ),
    Declaration(
        "empty_answer", SignalType.BINARY, Kind.OUTPUT, "Answers without any text.",
        higher_is_worse=True, draw=empty,
    ),
)  # fmt: skip
