"""Contracts to the domain's types and back."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import cast

from google.protobuf.timestamp_pb2 import Timestamp

from penstock.codec import decode
from penstock.errors import Code, InvalidRequest
from penstock.pricing import Tokens, plain
from penstock.records import Record
from penstock.v1 import alert_pb2, common_pb2, cost_service_pb2, usage_pb2
from penstock_cost.ledger import GroupSum, Line, Sum, billed

__all__ = ["FIRST_S", "LAST_S", "line_of", "micros", "missing_price_alert", "spend_response"]

RUNBOOK = "docs/runbooks/cost.md"
# The years 1 to 9999: where protobuf's timestamps and Python's times begin and end.
FIRST_S, LAST_S = -62_135_596_800, 253_402_300_799


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
    return Line(
        line_id=usage.line_id,
        request_id=usage.request_id,
        kind=_kind(usage.kind),
        tenant=usage.tenant,
        model=usage.model,
        variant=usage.variant,
        tokens=_tokens(usage.usage, "usage"),
        observed_at_us=micros(usage.observed_at),
        avoided=_tokens(usage.avoided, "avoided"),
    )


def _tokens(counts: common_pb2.Usage, field: str) -> Tokens:
    try:
        return Tokens(counts.prompt_tokens, counts.cached_prompt_tokens, counts.completion_tokens)
    except ValueError as error:
        raise InvalidRequest(
            str(error), code=Code.ERROR_CODE_MALFORMED, field=f"{field}.cached_prompt_tokens"
        ) from error


def _kind(kind: int) -> str:
    value = usage_pb2.UsageKind.DESCRIPTOR.values_by_number.get(kind)
    # A newer writer's kind is kept by its number.
    return value.name if value is not None else str(kind)


def _kind_number(kind: str) -> usage_pb2.UsageKind.ValueType:
    value = usage_pb2.UsageKind.DESCRIPTOR.values_by_name.get(kind)
    number = value.number if value is not None else int(kind)
    return cast("usage_pb2.UsageKind.ValueType", number)


def micros(time: Timestamp) -> int:
    """Microseconds since 1970; what is finer is dropped."""
    return time.seconds * 1_000_000 + time.nanos // 1000


def spend_response(sums: Sequence[GroupSum]) -> cost_service_pb2.GetSpendResponse:
    """Sums as the contract carries them."""
    total = sum((found.total for found in sums), Sum())
    unbilled = sum((found.unbilled for found in sums), Sum())
    kinds: dict[str, Sum] = {}
    for found in sums:
        for kind, spent in found.kinds.items():
            kinds[kind] = kinds.get(kind, Sum()) + spent
    return cost_service_pb2.GetSpendResponse(
        total_usd=plain(total.amount_usd),
        lines=total.lines,
        groups=[_group(found) for found in sums],
        kinds=_kinds(kinds),
        avoided_usd=plain(total.avoided_usd),
        unbilled_usd=plain(unbilled.amount_usd),
    )


def _group(found: GroupSum) -> cost_service_pb2.SpendGroup:
    total = found.total
    return cost_service_pb2.SpendGroup(
        tenant=found.group.tenant,
        model=found.group.model,
        variant=found.group.variant,
        amount_usd=plain(total.amount_usd),
        lines=total.lines,
        prompt_tokens=total.prompt_tokens,
        completion_tokens=total.completion_tokens,
        price_versions=found.versions,
        kinds=_kinds(found.kinds),
        avoided_usd=plain(total.avoided_usd),
        unbilled_usd=plain(found.unbilled.amount_usd),
    )


def _kinds(kinds: Mapping[str, Sum]) -> list[cost_service_pb2.KindSpend]:
    """In the order of the contract."""
    spends = [
        cost_service_pb2.KindSpend(
            kind=_kind_number(kind),
            billed=billed(kind),
            amount_usd=plain(spent.amount_usd),
            avoided_usd=plain(spent.avoided_usd),
            lines=spent.lines,
            prompt_tokens=spent.prompt_tokens,
            completion_tokens=spent.completion_tokens,
        )
        for kind, spent in kinds.items()
    ]
    return sorted(spends, key=lambda spend: spend.kind)


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
