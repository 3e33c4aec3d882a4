"""Records to messages and back: protobuf and its JSON mapping, told apart by `content-type`.

Every record that penstock writes is a CloudEvent in Kafka's binary mode (CloudEvents 1.0, Kafka
protocol binding), with W3C trace context in its headers. A record without headers is taken as
JSON where its value opens with a brace, since that is what a person with kcat sends.
"""

from __future__ import annotations

import datetime as dt
import functools
import uuid
from typing import TypeVar

from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message
from opentelemetry import context as trace_context
from opentelemetry import propagate

from penstock.errors import Code, InvalidRequest
from penstock.records import Outgoing, Record
from penstock.v1 import admitted_pb2

__all__ = ["Encoding", "decode", "decode_value", "encode", "encoding_of", "to_json"]

Encoding = admitted_pb2.Encoding
PROTOBUF = Encoding.ENCODING_PROTOBUF
JSON = Encoding.ENCODING_JSON

_CONTENT_TYPES = {PROTOBUF: b"application/protobuf", JSON: b"application/json"}
_ENCODINGS = {
    "application/protobuf": PROTOBUF,
    "application/x-protobuf": PROTOBUF,
    "application/json": JSON,
}

M = TypeVar("M", bound=Message)


def encoding_of(record: Record) -> Encoding.ValueType:
    """The encoding that a record's `content-type` names, or its first byte without one.

    Raises:
        InvalidRequest: The content type is none that penstock reads.
    """
    header = record.header("content-type")
    if header is None:
        return JSON if (record.value or b"").lstrip()[:1] in (b"{", b"[", b'"') else PROTOBUF
    encoding = _ENCODINGS.get(header.split(";")[0].strip().lower())
    if encoding is None:
        raise InvalidRequest(
            f"content-type {header!r} is not known; send application/json or application/protobuf",
            code=Code.ERROR_CODE_MALFORMED,
            field="content-type",
        )
    return encoding


def decode(record: Record, message: type[M]) -> M:
    """A record's value as a message.

    Raises:
        InvalidRequest: The value is not that message in its encoding (ERROR_CODE_MALFORMED).
    """
    return decode_value(record.value, message, encoding_of(record))


def decode_value(value: bytes | None, message: type[M], encoding: Encoding.ValueType) -> M:
    """Bytes as a message.

    Raises:
        InvalidRequest: The bytes are not that message in that encoding (ERROR_CODE_MALFORMED).
    """
    name = message.DESCRIPTOR.name
    if value is None:
        raise InvalidRequest(
            f"the record has no value; it must be a {name}",
            code=Code.ERROR_CODE_MALFORMED,
            field="value",
        )
    try:
        if encoding == JSON:
            return json_format.Parse(value, message(), max_recursion_depth=50)
        return message.FromString(value)
    except (DecodeError, json_format.ParseError, UnicodeDecodeError, RecursionError) as error:
        kind = "JSON" if encoding == JSON else "protobuf"
        raise InvalidRequest(
            f"the value is not a {name} in {kind}: {error}",
            code=Code.ERROR_CODE_MALFORMED,
            field="value",
        ) from error


def to_json(message: Message, *, indent: int | None = None) -> str:
    """A message in protobuf's JSON mapping, with the contract's own field names."""
    return json_format.MessageToJson(
        message, preserving_proto_field_name=True, indent=indent, ensure_ascii=False
    )


def encode(
    message: Message,
    *,
    topic: str,
    key: str | bytes | None,
    source: str,
    event_id: str | None = None,
    encoding: Encoding.ValueType = PROTOBUF,
    partition: int | None = None,
    time: dt.datetime | None = None,
) -> Outgoing:
    """A message as a CloudEvent record, with the current trace context.

    Args:
        message: The value.
        topic: The topic's full name on the broker.
        key: The record's key.
        source: The service that writes it, for `ce_source`.
        event_id: For `ce_id`; a repeat of the same event must carry the same one. Random if None.
        encoding: How the value is written.
        partition: A partition chosen by the writer; None lets the key choose.
        time: For `ce_time`; now if None.
    """
    headers = [
        *_fixed_headers(encoding, source, message.DESCRIPTOR.full_name),
        ("ce_id", (event_id or uuid.uuid4().hex).encode()),
        ("ce_time", _iso(time or dt.datetime.now(dt.UTC))),
    ]
    if trace_context.get_current():  # asking the propagator costs more than all the rest
        context: dict[str, str] = {}
        propagate.inject(context)
        headers.extend((name, value.encode()) for name, value in context.items())
    value = (
        to_json(message).encode()
        if encoding == JSON
        else message.SerializeToString(deterministic=True)
    )
    return Outgoing(
        topic=topic,
        key=key.encode() if isinstance(key, str) else key,
        value=value,
        headers=tuple(headers),
        partition=partition,
    )


@functools.lru_cache(maxsize=256)
def _fixed_headers(
    encoding: Encoding.ValueType, source: str, record_type: str
) -> tuple[tuple[str, bytes], ...]:
    return (
        ("content-type", _CONTENT_TYPES[encoding]),
        ("ce_specversion", b"1.0"),
        ("ce_source", f"/penstock/{source}".encode()),
        ("ce_type", record_type.encode()),
    )


@functools.lru_cache(maxsize=8)
def _iso(instant: dt.datetime) -> bytes:
    # The records of one request carry one time.
    return instant.isoformat().encode()
