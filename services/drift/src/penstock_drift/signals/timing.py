"""How long answers take, and whether there are any."""

from __future__ import annotations

from penstock_drift.records.values import Kind, SignalType
from penstock_drift.signals.declared import Declaration, Transform
from penstock_drift.signals.facts import Facts, Outcome

__all__ = ["SIGNALS"]


def latency(facts: Facts) -> float | None:
    """From publication to the answer."""
    return facts.answer.total_s if facts.answered else None


def latency_first_token(facts: Facts) -> float | None:
    """From publication to the first token, queue included: what a reader waits for."""
    answer = facts.answer
    if not facts.answered or answer.first_token_s is None:
        return None
    return (answer.queued_s or 0.0) + answer.first_token_s


def latency_queue(facts: Facts) -> float | None:
    """From publication to the start of the work."""
    return facts.answer.queued_s if facts.answered else None


def tokens_per_second(facts: Facts) -> float | None:
    """Tokens of the answer per second of the engine's work."""
    answer = facts.answer
    if not facts.answered or not answer.completion_tokens or not answer.generation_s:
        return None
    return answer.completion_tokens / answer.generation_s


def cached_prompt(facts: Facts) -> float | None:
    """The share of the prompt that the engine had in its prefix cache."""
    answer = facts.answer
    if not facts.answered or not answer.prompt_tokens or answer.cached_tokens is None:
        return None
    return min(1.0, answer.cached_tokens / answer.prompt_tokens)


def error(facts: Facts) -> float:
    """Whether the platform owed an answer and gave none."""
    return float(facts.answer.outcome in (Outcome.FAILED, Outcome.EXPIRED))


def outcome(facts: Facts) -> str:
    """How the request ended."""
    return facts.answer.outcome.value


def run_again(facts: Facts) -> float | None:
    """Whether the work had to be done more than once."""
    return float(facts.answer.attempt > 1) if facts.answer.attempt else None


SIGNALS = (
    Declaration(
        "latency", SignalType.NUMBER, Kind.OPERATIONAL, "From publication to the answer.",
        unit="s", transform=Transform.LOG, higher_is_worse=True, draw=latency,
    ),
    Declaration(
        "latency_first_token", SignalType.NUMBER, Kind.OPERATIONAL,
        "From publication to the first token.",
        unit="s", transform=Transform.LOG, higher_is_worse=True, draw=latency_first_token,
    ),
    Declaration(
        "latency_queue", SignalType.NUMBER, Kind.OPERATIONAL,
        "From publication to the start of the work.",
        unit="s", transform=Transform.LOG, higher_is_worse=True, draw=latency_queue,
    ),
    Declaration(
        "tokens_per_second", SignalType.NUMBER, Kind.OPERATIONAL, "The engine's speed.",
        unit="tokens/s", transform=Transform.LOG, higher_is_worse=False, draw=tokens_per_second,
    ),
    Declaration(
        "cached_prompt", SignalType.BOUNDED, Kind.OPERATIONAL,
        "Share of the prompt in the engine's prefix cache.",
        higher_is_worse=False, draw=cached_prompt,
    ),
    Declaration(
        "error", SignalType.BINARY, Kind.OPERATIONAL, "Requests that failed or expired.",
        higher_is_worse=True, draw=error,
    ),
    Declaration(
        "outcome", SignalType.CATEGORY, Kind.OPERATIONAL, "How requests end.", draw=outcome
    ),
    Declaration(
        "run_again", SignalType.BINARY, Kind.OPERATIONAL, "Work that had to be run again.",
        higher_is_worse=True, draw=run_again,
    ),
)  # fmt: skip
