"""Which line of the ledger a request writes."""

from __future__ import annotations

import datetime as dt

import pytest

from penstock.v1 import common_pb2, usage_pb2
from penstock_inference.pump.ledger_lines import kind_of, usage_of_generation, usage_of_hit
from tests.unit.inference.test_caching import admitted, changed, result

NOW = dt.datetime(2026, 7, 1, 12, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("purpose", "line_id", "kind"),
    [
        ("PURPOSE_UNSPECIFIED", "req-1/generation", usage_pb2.USAGE_KIND_GENERATION),
        ("PURPOSE_REPLAY", "req-1/replay", usage_pb2.USAGE_KIND_REPLAY),
        ("PURPOSE_SHADOW", "req-1/shadow", usage_pb2.USAGE_KIND_SHADOW),
        ("PURPOSE_PROBE", "req-1/probe", usage_pb2.USAGE_KIND_PROBE),
    ],
)
def test_the_purpose_is_the_kind(
    purpose: str, line_id: str, kind: usage_pb2.UsageKind.ValueType
) -> None:
    value = common_pb2.Purpose.Value(purpose)
    asked = changed(lambda request: setattr(request, "purpose", value))
    line = usage_of_generation(asked, result().usage, NOW)
    assert (line.line_id, line.kind) == (line_id, kind)
    assert (line.request_id, line.tenant, line.model, line.variant) == (
        "req-1",
        "acme",
        "triage",
        "triage-7",
    )
    assert line.usage == result().usage
    assert not line.HasField("avoided")
    assert line.observed_at.ToDatetime(dt.UTC) == NOW


def test_every_purpose_has_a_kind_of_its_own() -> None:
    kinds = [kind_of(purpose) for purpose in common_pb2.Purpose.values()]
    assert len(set(kinds)) == len(kinds)


def test_a_hit_uses_nothing_and_says_what_it_avoided() -> None:
    line = usage_of_hit(admitted(), result().usage, NOW)
    assert (line.line_id, line.kind) == ("req-1/cache-hit", usage_pb2.USAGE_KIND_CACHE_HIT)
    assert line.HasField("usage")
    assert line.usage == common_pb2.Usage()
    assert line.avoided == result().usage
