"""A dead letter is the record as it was, readable for Spring's tools, silent about its content."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import Code, InvalidRequest
from penstock.failures import Poisoned, Reason
from penstock.kafka.dlq import Letter, NotALetter, dead_letter, original_headers
from penstock.records import Outgoing, Partition, Record

MARKER = "MARKER-of-a-prompt"
RECORD = Record(
    Partition("p.requests", 3),
    2**33 + 7,
    b"key",
    MARKER.encode(),
    (("content-type", b"text/csv"), ("kafka_dlt-original-topic", b"a lie")),
    1_777_636_800_123,
)


def letter(record: Record = RECORD, error: Exception | None = None, **more: object) -> Outgoing:
    given_up: dict[str, object] = {"reason": "the handler raised", "attempts": 2} | more
    return dead_letter(record, dlq_topic="p.dlq", service="ingest", error=error, **given_up)  # type: ignore[arg-type]


def on_dlq(written: Outgoing, offset: int = 5) -> Record:
    return Record(
        Partition(written.topic, 0), offset, written.key, written.value, written.headers, 9
    )


def test_headers_are_encoded_as_spring_kafka_does_it() -> None:
    # Integer.BYTES and Long.BYTES in a ByteBuffer, whose order is big-endian; names in UTF-8.
    headers = dict(letter(group="g", request_id="req-1", tenant="acme").headers)
    assert headers == {
        "content-type": b"text/csv",
        "kafka_dlt-original-topic": b"p.requests",
        "kafka_dlt-original-partition": b"\x00\x00\x00\x03",
        "kafka_dlt-original-offset": b"\x00\x00\x00\x02\x00\x00\x00\x07",
        "kafka_dlt-original-timestamp": struct.pack(">q", 1_777_636_800_123),
        "kafka_dlt-original-timestamp-type": b"CreateTime",
        "kafka_dlt-original-consumer-group": b"g",
        "kafka_dlt-exception-message": b"the handler raised",
        "penstock-service": b"ingest",
        "penstock-reason": b"handler-raised",
        "penstock-attempts": b"2",
        "penstock-request-id": b"req-1",
        "penstock-tenant": b"acme",
    }


def test_what_is_not_known_is_left_out() -> None:
    names = {name for name, _ in letter().headers}
    assert "kafka_dlt-original-consumer-group" not in names
    assert "kafka_dlt-exception-fqcn" not in names
    assert "penstock-request-id" not in names


@given(
    st.binary(max_size=20) | st.none(),
    st.lists(st.tuples(st.text(max_size=5), st.binary(max_size=5)), max_size=4),
    st.integers(0, 2**31 - 1),
    st.integers(0, 2**62),
)
def test_the_original_can_be_had_back(
    value: bytes | None, headers: list[tuple[str, bytes]], number: int, offset: int
) -> None:
    record = Record(Partition("t", number), offset, b"k", value, tuple(headers), 17)
    written = letter(record)
    found = Letter.of(on_dlq(written))
    assert (written.key, written.value) == (b"k", value)
    assert (found.origin, found.origin_offset) == (record.partition, offset)
    assert found.origin_timestamp_ms == 17
    ours = ("penstock-", "kafka_dlt-")
    assert list(original_headers(written.headers)) == [
        pair for pair in headers if not pair[0].startswith(ours)
    ]


def test_a_letter_is_read_back() -> None:
    found = Letter.of(on_dlq(letter(error=Poisoned("three died"), request_id="req-1")))
    assert found.letter_id == "0-5"
    assert (found.service, found.reason, found.attempts) == ("ingest", Reason.POISON.value, 2)
    assert found.error == "penstock.failures.Poisoned"
    assert found.message == "the handler raised"
    assert (found.request_id, found.tenant, found.group) == ("req-1", "", "")


def test_a_letter_of_springs_own_is_read_too() -> None:
    headers = (
        ("kafka_dlt-original-topic", b"orders"),
        ("kafka_dlt-original-partition", b"\x00\x00\x00\x01"),
        ("kafka_dlt-original-offset", b"\x00\x00\x00\x00\x00\x00\x00\x2a"),
        ("kafka_dlt-exception-fqcn", b"java.lang.IllegalStateException"),
    )
    found = Letter.of(Record(Partition("p.dlq", 0), 1, None, b"{}", headers, 0))
    assert (found.origin, found.origin_offset) == (Partition("orders", 1), 42)
    assert (found.service, found.reason) == ("", "")


@pytest.mark.parametrize("number", [b"3", b"", b"\x00\x00\x03"])
def test_a_record_that_is_no_letter_is_told(number: bytes) -> None:
    headers = (("kafka_dlt-original-topic", b"t"), ("kafka_dlt-original-partition", number))
    with pytest.raises(NotALetter, match=r"p\.dlq/0-1"):
        Letter.of(Record(Partition("p.dlq", 0), 1, None, b"{}", headers, 0))


@pytest.mark.parametrize(
    "error",
    [
        ValueError(MARKER),
        InvalidRequest(f"not JSON: {MARKER}", code=Code.ERROR_CODE_MALFORMED, field="value"),
        KeyError(MARKER),
    ],
    ids=lambda error: type(error).__name__,
)
def test_no_header_holds_the_words_of_an_exception(error: Exception) -> None:
    assert not any(MARKER.encode() in value for _, value in letter(error=error).headers)
