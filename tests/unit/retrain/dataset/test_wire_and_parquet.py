"""Records become rows, rows become Parquet, and nothing is lost on the way."""

from __future__ import annotations

import math

import pytest

from penstock.codec import Encoding, encode
from penstock.errors import InvalidRequest
from penstock.records import Partition, Record
from penstock.v1 import admitted_pb2, common_pb2, feedback_pb2, response_pb2
from penstock_retrain.dataset.names import Kind
from penstock_retrain.dataset.parquet import as_parquet, read_columns, read_rows
from penstock_retrain.dataset.rows import Message, Passage, RequestRow, ResponseRow
from penstock_retrain.dataset.wire import row_of


def record(message: object, offset: int = 7) -> Record:
    made = encode(message, topic="t", key="k\xe9", source="test", encoding=Encoding.ENCODING_JSON)  # type: ignore[arg-type]
    return Record(Partition("t", 3), offset, made.key, made.value, made.headers, 1_800_000_000_123)


def test_a_request_with_everything() -> None:
    admitted = admitted_pb2.AdmittedRequest(request_id="r", variant="v", route_version=2**63 + 1)
    admitted.purpose = common_pb2.PURPOSE_SHADOW
    admitted.request.model, admitted.request.tenant = "m", "acme"
    admitted.request.ordering_key = "o"
    admitted.request.labels["task"] = "refund"
    admitted.request.messages.add(role="user", content="two\nlines \N{SNOWMAN}")
    admitted.request.contexts.add(id="doc", text="a passage", source="wiki")
    admitted.request.response_schema["type"] = "object"
    row = row_of(Kind.REQUESTS, record(admitted))
    assert isinstance(row, RequestRow)
    assert (row.partition, row.offset, row.time_ms, row.key) == (3, 7, 1_800_000_000_123, "k\xe9")
    assert (row.purpose, row.route_version, row.ordering_key) == ("shadow", 2**63 + 1, "o")
    assert row.messages == (Message("user", "two\nlines \N{SNOWMAN}"),)
    assert row.passages == (Passage("a passage", "doc"),)
    assert row.schema == '{"type": "object"}'
    assert list(read_rows(Kind.REQUESTS, as_parquet(Kind.REQUESTS, [row]))) == [row]


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_a_schema_that_no_json_holds_costs_no_request(number: float) -> None:
    admitted = admitted_pb2.AdmittedRequest(request_id="r")
    admitted.request.response_schema["maximum"] = number
    made = encode(admitted, topic="t", key="k", source="test")
    row = row_of(Kind.REQUESTS, Record(Partition("t", 0), 1, made.key, made.value, made.headers, 0))
    assert isinstance(row, RequestRow)
    assert (row.request_id, row.schema) == ("r", "")


def test_a_response_and_one_with_nothing_in_it() -> None:
    response = response_pb2.GenerateResponse(
        request_id="r", outcome=response_pb2.OUTCOME_ANSWERED, text="yes", adapter="a-1"
    )
    response.labels["b"], response.labels["a"] = "2", "1"
    response.usage.prompt_tokens = 12
    rows = [
        row_of(Kind.RESPONSES, record(response, 1)),
        row_of(Kind.RESPONSES, record(response_pb2.GenerateResponse(), 2)),
    ]
    first, bare = rows
    assert isinstance(first, ResponseRow)
    assert isinstance(bare, ResponseRow)
    assert (first.outcome, first.finish, first.adapter, first.prompt_tokens) == (
        "answered",
        "",
        "a-1",
        12,
    )
    assert (bare.outcome, bare.labels) == ("", {})
    data = as_parquet(Kind.RESPONSES, rows)
    assert list(read_rows(Kind.RESPONSES, data)) == rows
    assert read_columns(data, ("offset", "text")) == [
        {"offset": 1, "text": "yes"},
        {"offset": 2, "text": ""},
    ]


def test_feedback_tells_nothing_from_zero() -> None:
    said = [
        feedback_pb2.Feedback(request_id="r", label="a", business_value=0.0, value_unit="EUR"),
        feedback_pb2.Feedback(request_id="r", score=0.0),
        feedback_pb2.Feedback(request_id="r", correction="better"),
        feedback_pb2.Feedback(request_id="r", business_value=-2.5),
    ]
    rows = [row_of(Kind.FEEDBACK, record(each, n)) for n, each in enumerate(said)]
    back = list(read_rows(Kind.FEEDBACK, as_parquet(Kind.FEEDBACK, rows)))
    assert back == rows
    shown = [(r.label, r.score, r.correction, r.business_value) for r in back]  # type: ignore[union-attr]
    assert shown == [
        ("a", None, None, 0.0),
        (None, 0.0, None, None),
        (None, None, "better", None),
        (None, None, None, -2.5),
    ]


@pytest.mark.parametrize("kind", list(Kind))
def test_what_is_no_record_of_its_topic_is_refused(kind: Kind) -> None:
    bad = Record(Partition("t", 0), 1, None, b"\xff\xff\xff", [], 0)
    with pytest.raises(InvalidRequest):
        row_of(kind, bad)
