"""Records of `responses`, `shadows` and `feedback` as answers and opinions."""

from __future__ import annotations

import datetime as dt
import math

from penstock.codec import decode
from penstock.errors import InvalidRequest
from penstock.pricing import PriceTable, Tokens, UnknownPrice, cost_of
from penstock.records import Record
from penstock.v1 import common_pb2, feedback_pb2, response_pb2
from penstock_retrain.canary.quantities import Answer, Opinion

__all__ = ["answer_of", "copy_of", "opinion_of"]

# The label of requests whose questions never change: they are nobody's traffic.
GOLDEN = "golden"
_OWED = (response_pb2.OUTCOME_FAILED, response_pb2.OUTCOME_EXPIRED)


def answer_of(record: Record, model: str, prices: PriceTable | None = None) -> Answer | None:
    """A record of `responses`; None of another model, or where no client asked.

    Raises:
        InvalidRequest: The record is no response, or a number in it is none.
    """
    response = decode(record, response_pb2.GenerateResponse)
    if response.model != model or response.purpose or GOLDEN in response.labels:
        return None
    key = (record.key or b"").decode("utf-8", "replace")
    # A request without an ordering key has its own id as the record's key: it stands for itself.
    unit = "" if key in ("", response.request_id) else f"{response.tenant}/{key}"
    return _answer(record, response, response.request_id, unit, prices)


def copy_of(record: Record, model: str) -> Answer | None:
    """A record of `shadows`, as an answer to the request that it repeats; None of another model.

    Raises:
        InvalidRequest: The record is no response, or a number in it is none.
    """
    response = decode(record, response_pb2.GenerateResponse)
    if response.model != model or response.purpose != common_pb2.PURPOSE_SHADOW:
        return None
    return _answer(record, response, response.origin_request_id, "", None)


def opinion_of(record: Record) -> Opinion:
    """A record of `feedback`.

    Raises:
        InvalidRequest: The record is none, or a number in it is none.
    """
    feedback = decode(record, feedback_pb2.Feedback)
    _check_number("score", feedback.score)
    _check_number("business_value", feedback.business_value)
    given = feedback.WhichOneof("value")
    return Opinion(
        feedback.request_id,
        label=feedback.label if given == "label" else None,
        score=feedback.score if given == "score" else None,
        correction=feedback.correction if given == "correction" else None,
        value=feedback.business_value if feedback.HasField("business_value") else None,
        value_unit=feedback.value_unit,
    )


def _answer(
    record: Record,
    response: response_pb2.GenerateResponse,
    request_id: str,
    unit: str,
    prices: PriceTable | None,
) -> Answer:
    total_s = response.timings.total_s
    _check_number("timings.total_s", total_s)
    return Answer(
        request_id=request_id,
        variant=response.variant,
        route_version=response.route_version,
        published_ms=record.timestamp_ms - round(total_s * 1000),
        unit=unit,
        answered=response.outcome == response_pb2.OUTCOME_ANSWERED,
        failed=response.outcome in _OWED,
        cached=response.cached,
        text=response.text,
        total_s=total_s,
        completion_tokens=response.usage.completion_tokens,
        cost_usd=_cost(record, response, prices),
    )


def _check_number(field: str, value: float) -> None:
    # A test's evidence would be no number for ever after.
    if not math.isfinite(value):
        raise InvalidRequest(f"{value} is no number to compare", field=field)


def _cost(
    record: Record, response: response_pb2.GenerateResponse, prices: PriceTable | None
) -> float | None:
    if prices is None or not response.HasField("usage"):
        return None
    usage = response.usage
    try:
        price = prices.at(
            response.model, dt.datetime.fromtimestamp(record.timestamp_ms / 1000, dt.UTC)
        )
        tokens = Tokens(usage.prompt_tokens, usage.cached_prompt_tokens, usage.completion_tokens)
    except (UnknownPrice, ValueError):
        return None
    return float(cost_of(price, tokens))
