"""The line of the ledger that a finished request writes: what for, and what was used. Pure."""

from __future__ import annotations

import datetime as dt

from google.protobuf import timestamp_pb2

from penstock.v1 import admitted_pb2, common_pb2, usage_pb2
from penstock_inference.pump.jobs import COPIES_MS

__all__ = ["kind_of", "usage_of_generation", "usage_of_hit"]

_KINDS = {
    common_pb2.PURPOSE_UNSPECIFIED: usage_pb2.USAGE_KIND_GENERATION,
    common_pb2.PURPOSE_REPLAY: usage_pb2.USAGE_KIND_REPLAY,
    common_pb2.PURPOSE_SHADOW: usage_pb2.USAGE_KIND_SHADOW,
    common_pb2.PURPOSE_PROBE: usage_pb2.USAGE_KIND_PROBE,
}


def kind_of(purpose: common_pb2.Purpose.ValueType) -> usage_pb2.UsageKind.ValueType:
    """What the tokens of a request with this purpose were spent on.

    Raises:
        KeyError: A purpose of a newer contract, whose kind nobody has decided.
    """
    return _KINDS[purpose]


def usage_of_generation(
    admitted: admitted_pb2.AdmittedRequest, usage: common_pb2.Usage, now: dt.datetime
) -> usage_pb2.UsageLine:
    """The line for tokens that an engine generated.

    Args:
        admitted: The request; its variant is the one that answered.
        usage: As the engine counted it.
        now: When it was observed, UTC.
    """
    line = _line(admitted, kind_of(admitted.purpose), now)
    line.usage.CopyFrom(usage)
    return line


def usage_of_hit(
    admitted: admitted_pb2.AdmittedRequest, avoided: common_pb2.Usage, now: dt.datetime
) -> usage_pb2.UsageLine:
    """The line for an answer from the cache: nothing used, and what that saved.

    Args:
        admitted: The request; its variant is the one whose answer it was.
        avoided: `Hit.avoided`: what the original answer used.
        now: When it was observed, UTC.
    """
    line = _line(admitted, usage_pb2.USAGE_KIND_CACHE_HIT, now)
    line.usage.SetInParent()  # known to be nothing, not unknown
    line.avoided.CopyFrom(avoided)
    return line


def _line(
    admitted: admitted_pb2.AdmittedRequest,
    kind: usage_pb2.UsageKind.ValueType,
    now: dt.datetime,
) -> usage_pb2.UsageLine:
    observed = timestamp_pb2.Timestamp()
    observed.FromDatetime(now)
    # `req-1/cache-hit`: one line of a kind per request, however often it is written.
    suffix = usage_pb2.UsageKind.Name(kind).removeprefix("USAGE_KIND_").lower().replace("_", "-")
    return usage_pb2.UsageLine(
        line_id=f"{_use_of(admitted)}/{suffix}",
        request_id=admitted.request_id,
        kind=kind,
        tenant=admitted.request.tenant,
        model=admitted.request.model,
        variant=admitted.variant,
        observed_at=observed,
    )


def _use_of(admitted: admitted_pb2.AdmittedRequest) -> str:
    """What tells a request from others that had its id: `jobs.COPIES_MS` says what a copy is."""
    if not admitted.request.idempotency_key:
        return admitted.request_id
    return f"{admitted.request_id}@{admitted.admitted_at.ToMilliseconds() // COPIES_MS}"
