"""Responses, requests and feedback, as the contracts have them, to what signals are drawn from."""

from __future__ import annotations

import datetime as dt
from typing import Any

from google.protobuf import json_format, struct_pb2
from google.protobuf.message import Message

from penstock.pricing import PriceTable, Tokens, UnknownPrice, cost_of
from penstock.records import Record
from penstock.v1 import admitted_pb2, feedback_pb2, response_pb2
from penstock_drift.signals.facts import Answer, Finish, Opinion, Outcome, Passage, Question

__all__ = ["answer_of", "event_time_ms", "opinion_of", "question_of"]

# A clock further ahead of the record's own is wrong: it would make all others late.
MAX_AHEAD_MS = 60_000

_OUTCOMES = {
    response_pb2.OUTCOME_ANSWERED: Outcome.ANSWERED,
    response_pb2.OUTCOME_REJECTED: Outcome.REJECTED,
    response_pb2.OUTCOME_EXPIRED: Outcome.EXPIRED,
    response_pb2.OUTCOME_CANCELLED: Outcome.CANCELLED,
}
_FINISHES = {
    response_pb2.FINISH_REASON_STOP: Finish.STOP,
    response_pb2.FINISH_REASON_LENGTH: Finish.LENGTH,
}


def event_time_ms(message: Message, record: Record) -> int:
    """When what a record tells of happened, in milliseconds since 1970.

    Args:
        message: With `created_at`.
        record: Whose own time stands in where that is unset, or cannot be.
    """
    if not message.HasField("created_at"):
        return record.timestamp_ms
    created = message.created_at  # type: ignore[attr-defined]
    found: int = created.seconds * 1000 + created.nanos // 1_000_000
    return found if found <= record.timestamp_ms + MAX_AHEAD_MS else record.timestamp_ms


def answer_of(response: response_pb2.GenerateResponse, prices: PriceTable | None = None) -> Answer:
    """A terminal response; its price by what holds for its model when it was made."""
    timings = response.timings if response.HasField("timings") else None
    usage = response.usage if response.HasField("usage") else None
    drawn = response.log_probabilities if response.log_probabilities.tokens else None
    return Answer(
        request_id=response.request_id,
        model=response.model,
        variant=response.variant,
        route_version=response.route_version,
        adapter=response.adapter if response.HasField("adapter") else None,
        outcome=_OUTCOMES.get(response.outcome, Outcome.FAILED),
        labels=dict(response.labels),
        text=response.text,
        finish=_FINISHES.get(response.finish_reason, Finish.OTHER),
        prompt_tokens=usage.prompt_tokens if usage else None,
        completion_tokens=usage.completion_tokens if usage else None,
        cached_tokens=usage.cached_prompt_tokens if usage else None,
        queued_s=timings.queued_s if timings else None,
        # 0 where there was no token.
        first_token_s=(timings.first_token_s or None) if timings else None,
        generation_s=(timings.generation_s or None) if timings else None,
        total_s=timings.total_s if timings else None,
        mean_log_probability=drawn.mean if drawn else None,
        minimum_log_probability=drawn.minimum if drawn else None,
        attempt=response.attempt,
        cost_usd=_cost_usd(response, prices) if usage and prices else None,
    )


def question_of(admitted: admitted_pb2.AdmittedRequest) -> Question:
    """An admitted request: of a conversation the last turn of the user."""
    request = admitted.request
    users = (m.content for m in reversed(request.messages) if m.role == "user")
    return Question(
        text=request.prompt or next(users, ""),
        turns=len(request.messages) or 1,
        passages=tuple(
            Passage(each.text, each.score if each.HasField("score") else None)
            for each in request.contexts
        ),
        schema=_schema(request.response_schema) if request.HasField("response_schema") else None,
    )


def opinion_of(feedback: feedback_pb2.Feedback) -> Opinion:
    """What somebody thought of a response."""
    given = feedback.WhichOneof("value")
    return Opinion(
        label=feedback.label if given == "label" else None,
        score=feedback.score if given == "score" else None,
        correction=feedback.correction if given == "correction" else None,
    )


def _schema(struct: struct_pb2.Struct) -> dict[str, Any] | None:
    """A schema as JSON; None where JSON cannot say it, such as a bound that is infinite."""
    try:
        found: dict[str, Any] = json_format.MessageToDict(struct)
    except (json_format.Error, ValueError):
        return None
    return found


def _cost_usd(response: response_pb2.GenerateResponse, prices: PriceTable) -> float | None:
    usage = response.usage
    try:
        price = prices.at(response.model, response.created_at.ToDatetime(dt.UTC))
        tokens = Tokens(usage.prompt_tokens, usage.cached_prompt_tokens, usage.completion_tokens)
    except (UnknownPrice, ValueError):
        return None
    return float(cost_of(price, tokens))
