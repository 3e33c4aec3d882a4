"""Contracts to the domain's types and back."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from google.protobuf.timestamp_pb2 import Timestamp

from penstock.codec import decode
from penstock.errors import Code, InvalidRequest
from penstock.pricing import Tokens, add, plain
from penstock.records import Record
from penstock.v1 import alert_pb2, cost_service_pb2, usage_pb2
from penstock_cost.ledger import GroupSum, Line

__all__ = ["line_of", "micros", "missing_price_alert", "spend_response"]

RUNBOOK = "docs/runbooks/cost.md"
# The end of the year 9999, where protobuf's timestamps and Python's times end.
LAST_S = 253_402_300_799


def line_of(record: Record) -> Line:
    """A record of `usage` as a line.

    Raises:
        InvalidRequest: It is no usage line, or one that cannot be booked.
    """
    usage = decode(record, usage_pb2.UsageLine)
    present = {
        "line_id": bool(usage.line_id),
        "model": bool(usage.model),
        "observed_at": 0 < usage.observed_at.seconds <= LAST_S,
    }
    for field, there in present.items():
        if not there:
            raise InvalidRequest(
                f"a usage line needs {field}", code=Code.ERROR_CODE_MALFORMED, field=field
            )
    counts = usage.usage
    try:
        tokens = Tokens(counts.prompt_tokens, counts.cached_prompt_tokens, counts.completion_tokens)
    except ValueError as error:
        raise InvalidRequest(
            str(error), code=Code.ERROR_CODE_MALFORMED, field="usage.cached_prompt_tokens"
        ) from error
    return Line(
        line_id=usage.line_id,
        request_id=usage.request_id,
        kind=_kind(usage.kind),
        tenant=usage.tenant,
        model=usage.model,
        variant=usage.variant,
        tokens=tokens,
        observed_at_us=micros(usage.observed_at),
    )


def _kind(kind: int) -> str:
    value = usage_pb2.UsageKind.DESCRIPTOR.values_by_number.get(kind)
    # A newer writer's kind is kept by its number.
    return value.name if value is not None else str(kind)


def micros(time: Timestamp) -> int:
    """Microseconds since 1970; what is finer is dropped."""
    return time.seconds * 1_000_000 + time.nanos // 1000


def spend_response(sums: Sequence[GroupSum]) -> cost_service_pb2.GetSpendResponse:
    """Sums as the contract carries them."""
    return cost_service_pb2.GetSpendResponse(
        total_usd=plain(add(*(found.total.amount_usd for found in sums))),
        lines=sum(found.total.lines for found in sums),
        groups=[
            cost_service_pb2.SpendGroup(
                tenant=found.group.tenant,
                model=found.group.model,
                variant=found.group.variant,
                amount_usd=plain(found.total.amount_usd),
                lines=found.total.lines,
                prompt_tokens=found.total.prompt_tokens,
                completion_tokens=found.total.completion_tokens,
                price_versions=found.versions,
            )
            for found in sums
        ],
    )


def missing_price_alert(
    model: str, reason: str, since_us: int, resolved_at: dt.datetime | None = None
) -> alert_pb2.Alert:
    """An incident per model without a price: opened, or resolved where a time is given."""
    incident = f"cost/missing-price/{model}/{since_us}"
    since = Timestamp(seconds=since_us // 1_000_000, nanos=since_us % 1_000_000 * 1000)
    updated = Timestamp()
    updated.CopyFrom(since)
    if resolved_at is not None:
        updated.FromDatetime(resolved_at)
    state = alert_pb2.ALERT_STATE_RESOLVED if resolved_at else alert_pb2.ALERT_STATE_OPENED
    return alert_pb2.Alert(
        alert_id=f"{incident}/{'resolved' if resolved_at else 'opened'}",
        incident_id=incident,
        state=state,
        severity=alert_pb2.SEVERITY_TICKET,
        title=f"Usage of model {model} has no price",
        summary="Its lines are priced now" if resolved_at else f"Its lines wait: {reason}",
        service="cost",
        labels={"model": model},
        runbook=RUNBOOK,
        opened_at=since,
        updated_at=updated,
    )
