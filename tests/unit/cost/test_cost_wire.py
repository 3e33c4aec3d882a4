"""Which records of `usage` can be booked, and how spend and alerts read."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import pytest

from penstock.codec import JSON, encode
from penstock.errors import InvalidRequest
from penstock.pricing import Tokens
from penstock.records import Partition, Record
from penstock.v1 import admitted_pb2, alert_pb2, usage_pb2
from penstock_cost.ledger import Group, GroupSum, Sum
from penstock_cost.wire import line_of, missing_price_alert, spend_response

GENERATION = "USAGE_KIND_GENERATION"


def usage() -> usage_pb2.UsageLine:
    line = usage_pb2.UsageLine(
        line_id="l1", kind=usage_pb2.USAGE_KIND_GENERATION, tenant="acme", model="triage"
    )
    line.usage.prompt_tokens = 10
    line.usage.cached_prompt_tokens = 4
    line.usage.completion_tokens = 2
    line.observed_at.seconds, line.observed_at.nanos = 1_780_000_000, 1_999
    return line


def record(
    line: usage_pb2.UsageLine,
    encoding: admitted_pb2.Encoding.ValueType = admitted_pb2.ENCODING_PROTOBUF,
) -> Record:
    out = encode(line, topic="p.usage", key="acme", source="test", encoding=encoding)
    return Record(Partition("p.usage", 0), 0, out.key, out.value, out.headers, 0)


@pytest.mark.parametrize("encoding", [admitted_pb2.ENCODING_PROTOBUF, JSON])
def test_a_line_is_read_in_either_encoding(encoding: admitted_pb2.Encoding.ValueType) -> None:
    line = line_of(record(usage(), encoding))
    assert (line.line_id, line.tenant, line.model) == ("l1", "acme", "triage")
    assert line.kind == "USAGE_KIND_GENERATION"
    assert line.tokens == Tokens(prompt=10, cached=4, completion=2)
    assert line.observed_at_us == 1_780_000_000_000_001


@pytest.mark.parametrize("field", ["line_id", "model", "observed_at"])
def test_a_line_without_what_identifies_and_prices_it_is_refused(field: str) -> None:
    line = usage()
    line.ClearField(field)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match=field):
        line_of(record(line))


def test_impossible_counts_and_times_are_refused() -> None:
    line = usage()
    line.usage.cached_prompt_tokens = 11
    with pytest.raises(InvalidRequest, match="cached"):
        line_of(record(line))
    line = usage()
    line.observed_at.seconds = 2**60
    with pytest.raises(InvalidRequest, match="observed_at"):
        line_of(record(line))


def test_spend_is_written_out_to_the_last_digit() -> None:
    total = Sum(Decimal("12345678901234567890.1234567890123"), 2, 20, 4)
    small = Sum(Decimal("1E-13"), 1, 1, 1)
    response = spend_response(
        [
            GroupSum(Group("a", "m", "v"), {GENERATION: total}, ("2", "1"), 0),
            GroupSum(Group("b", "m", "v"), {GENERATION: small}, ("2",), 0),
        ]
    )
    assert response.total_usd == "12345678901234567890.1234567890124"
    assert response.lines == 3
    assert [group.amount_usd for group in response.groups] == [
        "12345678901234567890.1234567890123",
        "0.0000000000001",
    ]
    assert list(response.groups[0].price_versions) == ["2", "1"]


def test_spend_is_told_by_kind_and_what_nobody_is_billed_for_apart() -> None:
    kinds = {
        GENERATION: Sum(Decimal("0.5"), 2, 20, 4),
        "USAGE_KIND_CACHE_HIT": Sum(Decimal(0), 3, 0, 0, Decimal("0.75")),
        "USAGE_KIND_SHADOW": Sum(Decimal("0.3"), 1, 10, 2),
        "USAGE_KIND_PROBE": Sum(Decimal("0.01"), 1, 1, 1),
        "77": Sum(Decimal("0.001"), 1, 1, 1),  # a kind of a newer contract
    }
    response = spend_response([GroupSum(Group("a", "m", "v"), kinds, ("1",), 0)] * 2)
    assert (response.total_usd, response.lines) == ("1.002", 12)
    assert (response.avoided_usd, response.unbilled_usd) == ("1.5", "0.62")
    (group, _) = response.groups
    assert (group.amount_usd, group.lines, group.prompt_tokens) == ("0.501", 6, 21)
    assert (group.avoided_usd, group.unbilled_usd) == ("0.75", "0.31")
    assert [(k.kind, k.billed, k.amount_usd, k.avoided_usd, k.lines) for k in response.kinds] == [
        (usage_pb2.USAGE_KIND_GENERATION, True, "1", "0", 4),
        (usage_pb2.USAGE_KIND_CACHE_HIT, True, "0", "1.5", 6),
        (usage_pb2.USAGE_KIND_SHADOW, False, "0.6", "0", 2),
        (usage_pb2.USAGE_KIND_PROBE, False, "0.02", "0", 2),
        (77, True, "0.002", "0", 2),
    ]
    assert [kind.lines for kind in group.kinds] == [2, 3, 1, 1, 1]


def test_what_a_cache_hit_avoided_is_read_and_checked() -> None:
    line = usage()
    line.kind = usage_pb2.USAGE_KIND_CACHE_HIT
    line.avoided.CopyFrom(line.usage)
    line.usage.Clear()
    read = line_of(record(line))
    assert read.tokens == Tokens(0, 0, 0)
    assert read.avoided == Tokens(prompt=10, cached=4, completion=2)
    line.avoided.cached_prompt_tokens = 11
    with pytest.raises(InvalidRequest, match="cached") as refused:
        line_of(record(line))
    assert refused.value.field == "avoided.cached_prompt_tokens"


def test_an_alert_and_its_resolution_share_the_incident() -> None:
    opened = missing_price_alert("late", "no entry", 1_780_000_000_000_000)
    again = missing_price_alert("late", "no entry", 1_780_000_000_000_000)
    resolved = missing_price_alert(
        "late", "no entry", 1_780_000_000_000_000, dt.datetime(2026, 7, 1, tzinfo=dt.UTC)
    )
    assert opened == again
    assert opened.incident_id == resolved.incident_id
    assert (opened.state, resolved.state) == (
        alert_pb2.ALERT_STATE_OPENED,
        alert_pb2.ALERT_STATE_RESOLVED,
    )
    assert opened.alert_id != resolved.alert_id
