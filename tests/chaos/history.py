"""Reads the histories of a run. No import of penstock: what it wrote is read with own eyes.

JSON as it is; protobuf by a decoder of twenty lines and the field numbers of the contracts.
"""

from __future__ import annotations

import base64
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

# UsageLine (usage.proto), Usage (common.proto), AdmittedRequest, GenerateRequest (admitted.proto)
LINE_ID, LINE_REQUEST, LINE_KIND, LINE_TENANT, LINE_USAGE = 1, 2, 3, 4, 7
KIND_PROBE = 7
PROMPT_TOKENS, COMPLETION_TOKENS = 1, 2
ADMITTED_ID, ADMITTED_REQUEST, REQUEST_KEY = 1, 2, 10
# GenerateResponse (response.proto)
RESPONSE_ID, RESPONSE_TENANT, RESPONSE_KEY, RESPONSE_PURPOSE = 1, 13, 14, 19
PROBE_TENANT = "penstock-probe"  # of the stack's own first request
PURPOSE_PROBE = 3


class At(NamedTuple):
    """Where a record stands."""

    partition: int
    offset: int


@dataclass(frozen=True)
class Asked:
    """A request as it stands on the log; `sent` is when its generator first had it."""

    id: str
    tenant: str
    key: str | None
    at: At
    sent: float


@dataclass(frozen=True)
class Response:
    """A terminal response as it stands on the log; `probe`: the platform asked itself."""

    id: str
    request_id: str
    tenant: str
    key: str | None
    label: str
    outcome: str
    tokens: tuple[int, int]
    at: At
    probe: bool = False


@dataclass(frozen=True)
class Line:
    """A line of usage, on the topic or in the ledger; `probe`: the platform asked itself."""

    line_id: str
    request_id: str
    tenant: str
    tokens: tuple[int, int]
    probe: bool = False


@dataclass(frozen=True)
class Lost:
    """A partition whose committed readers cannot reach its end."""

    topic: str
    partition: int
    end: int
    stable: int


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a history; nothing where there is no file. A torn last line is left out."""
    if not path.exists():
        return
    with path.open(encoding="utf-8") as file:
        for text in file:
            if text.endswith("\n"):
                yield json.loads(text)


def fields(data: bytes) -> dict[int, list[int | bytes]]:
    """The fields of a protobuf message by number: varints as numbers, the rest as bytes.

    Raises:
        ValueError: It is none.
    """
    found: dict[int, list[int | bytes]] = {}
    position = 0

    def varint() -> int:
        nonlocal position
        value = shift = 0
        while True:
            if position >= len(data):
                raise ValueError("a protobuf message ends within a number")
            byte = data[position]
            position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    while position < len(data):
        tag = varint()
        wire = tag & 7
        if wire == 0:
            found.setdefault(tag >> 3, []).append(varint())
            continue
        lengths = {1: 8, 5: 4}
        if wire not in (1, 2, 5):
            raise ValueError(f"wire type {wire} is not known")
        length = varint() if wire == 2 else lengths[wire]
        if position + length > len(data):
            raise ValueError("a protobuf message ends within a field")
        found.setdefault(tag >> 3, []).append(data[position : position + length])
        position += length
    return found


def _text(message: dict[int, list[int | bytes]], number: int) -> str:
    value = message.get(number, [b""])[-1]
    return value.decode() if isinstance(value, bytes) else ""


def _number(message: dict[int, list[int | bytes]], number: int) -> int:
    value = message.get(number, [0])[-1]
    return value if isinstance(value, int) else 0


def _inner(message: dict[int, list[int | bytes]], number: int) -> dict[int, list[int | bytes]]:
    value = message.get(number, [b""])[-1]
    return fields(value if isinstance(value, bytes) else b"")


def usage_line(value: bytes) -> Line:
    """A record of `usage`."""
    message = fields(value)
    usage = _inner(message, LINE_USAGE)
    return Line(
        line_id=_text(message, LINE_ID),
        request_id=_text(message, LINE_REQUEST),
        tenant=_text(message, LINE_TENANT),
        tokens=(_number(usage, PROMPT_TOKENS), _number(usage, COMPLETION_TOKENS)),
        probe=_number(message, LINE_KIND) == KIND_PROBE,
    )


def admitted_ids(value: bytes) -> tuple[str, str]:
    """The request id and the idempotency key of a record of `admitted`."""
    message = fields(value)
    return _text(message, ADMITTED_ID), _text(_inner(message, ADMITTED_REQUEST), REQUEST_KEY)


def response(line: dict[str, Any]) -> Response:
    """A line of `responses`. One in protobuf answers a probe, or is a phantom."""
    at = At(line["partition"], line["offset"])
    if "json" not in line:
        message = fields(value_of(line))
        tenant, purpose = _text(message, RESPONSE_TENANT), _number(message, RESPONSE_PURPOSE)
        return Response(
            id=_text(message, RESPONSE_KEY),
            request_id=_text(message, RESPONSE_ID),
            tenant=tenant,
            key=line["key"],
            label="",
            outcome="",
            tokens=(0, 0),
            at=at,
            probe=purpose == PURPOSE_PROBE or tenant == PROBE_TENANT,
        )
    body = json.loads(line["json"])
    usage = body.get("usage", {})
    return Response(
        id=body.get("idempotency_key", ""),
        request_id=body.get("request_id", ""),
        tenant=body.get("tenant", ""),
        key=line["key"],
        label=body.get("labels", {}).get("chaos", ""),
        outcome=body.get("outcome", "OUTCOME_UNSPECIFIED"),
        tokens=(usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0)),
        at=at,
        probe=body.get("purpose") == "PURPOSE_PROBE",
    )


def ledger_lines(path: Path) -> list[Line]:
    """The rows of the cost service's ledger."""
    if not path.exists():
        return []
    query = "SELECT line_id, request_id, tenant, prompt_tokens, completion_tokens FROM ledger_lines"
    with closing(sqlite3.connect(path)) as database:
        return [
            Line(line_id, request_id, tenant, (prompt, completion))
            for line_id, request_id, tenant, prompt, completion in database.execute(query)
        ]


def value_of(line: dict[str, Any]) -> bytes:
    """The bytes of a record's value."""
    if "base64" in line:
        return base64.b64decode(line["base64"])
    return str(line["json"]).encode()
