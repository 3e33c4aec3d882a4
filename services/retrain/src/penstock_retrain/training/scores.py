"""What is made of a model's scores on held-out rows. Pure."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from penstock.labels import same

__all__ = ["Scored", "exact_match", "of_answers", "of_pairs", "same_answer"]


@dataclasses.dataclass(frozen=True, slots=True)
class Scored:
    """How likely a model finds an answer.

    Attributes:
        log_probability: Of the whole answer, in nats.
        tokens: How many it has.
        right: How many of them the model finds likeliest, given those before.
    """

    log_probability: float
    tokens: int
    right: int


def of_answers(scored: Sequence[Scored]) -> dict[str, float]:
    """Loss in nats per token of the right answers, and the share of tokens that are likeliest."""
    tokens = sum(each.tokens for each in scored)
    if not tokens:
        return {}
    return {
        "held_out_loss": -sum(each.log_probability for each in scored) / tokens,
        "held_out_token_accuracy": sum(each.right for each in scored) / tokens,
    }


def of_pairs(better: Sequence[Scored], worse: Sequence[Scored]) -> dict[str, float]:
    """By how much the better answers are likelier, in nats, on average, and how many are."""
    margins = [
        one.log_probability - other.log_probability
        for one, other in zip(better, worse, strict=True)
    ]
    if not margins:
        return {}
    return {
        "held_out_margin": sum(margins) / len(margins),
        "held_out_preferred": sum(margin > 0 for margin in margins) / len(margins),
    }


def exact_match(said: Sequence[str], targets: Sequence[str]) -> float:
    """The share of answers that are right."""
    right = sum(same_answer(one, other) for one, other in zip(said, targets, strict=True))
    return right / len(targets)


def same_answer(said: str, target: str) -> bool:
    """Whether two answers say the same: JSON objects by their fields, texts but for case."""
    one, other = _fields(said), _fields(target)
    if other is None or one is None:
        return one is other and same(said, target)
    return one.keys() == other.keys() and all(same(one[name], other[name]) for name in other)


def _fields(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
