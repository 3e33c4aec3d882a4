"""Options that several commands share."""

from __future__ import annotations

import datetime as dt
from enum import StrEnum
from typing import Annotated

import typer

from penstock.codec import Encoding

__all__ = [
    "FORMATS",
    "EncodingName",
    "IdempotencyKey",
    "Instant",
    "Json",
    "MaxTokens",
    "Model",
    "Prompt",
    "Temperature",
    "Tenant",
    "utc",
]

# Of instants that people type.
FORMATS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S.%f"]

Model = Annotated[str | None, typer.Option(help="The route; the only one when left out.")]
Tenant = Annotated[str | None, typer.Option(help="Who is billed; `default` when left out.")]
Prompt = Annotated[str | None, typer.Option(help="A text to continue as it is.")]
MaxTokens = Annotated[int | None, typer.Option(min=1, help="The longest answer.")]
Temperature = Annotated[float | None, typer.Option(min=0, max=2, help="0 is greedy.")]
IdempotencyKey = Annotated[
    str | None, typer.Option(help="Names the request: two with one key and tenant are one.")
]
Instant = Annotated[
    dt.datetime | None,
    typer.Option(formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S.%f"], help="In UTC."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]


def utc(instant: dt.datetime | None) -> dt.datetime | None:
    """An `Instant` as it is meant: what people type is UTC."""
    return None if instant is None else instant.replace(tzinfo=dt.UTC)


class EncodingName(StrEnum):
    """How a record's value is written."""

    JSON = "json"
    PROTOBUF = "protobuf"

    @property
    def encoding(self) -> Encoding.ValueType:
        """The contract's value."""
        json = self is EncodingName.JSON
        return Encoding.ENCODING_JSON if json else Encoding.ENCODING_PROTOBUF
