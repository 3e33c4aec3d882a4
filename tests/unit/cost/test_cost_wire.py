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
            GroupSum(Group("a", "m", "v"), total, ("2", "1"), 0),
            GroupSum(Group("b", "m", "v"), small, ("2",), 0),
        ]
    )
    assert response.total_usd == "12345678901234567890.1234567890124"
    assert response.lines == 3
    assert [group.amount_usd for group in response.groups] == [
        "12345678901234567890.1234567890123",
        "0.0000000000001",
    ]
    assert list(response.groups[0].price_versions) == ["2", "1"]


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
