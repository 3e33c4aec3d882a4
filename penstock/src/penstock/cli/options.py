"""Options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from penstock.codec import Encoding

__all__ = [
    "EncodingName",
    "IdempotencyKey",
    "Json",
    "MaxTokens",
    "Model",
    "Prompt",
    "Temperature",
    "Tenant",
]

Model = Annotated[str | None, typer.Option(help="The route; the only one when left out.")]
Tenant = Annotated[str | None, typer.Option(help="Who is billed; `default` when left out.")]
Prompt = Annotated[str | None, typer.Option(help="A text to continue as it is.")]
MaxTokens = Annotated[int | None, typer.Option(min=1, help="The longest answer.")]
Temperature = Annotated[float | None, typer.Option(min=0, max=2, help="0 is greedy.")]
IdempotencyKey = Annotated[
    str | None, typer.Option(help="Names the request: two with one key and tenant are one.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]


class EncodingName(StrEnum):
    """How a record's value is written."""

    JSON = "json"
    PROTOBUF = "protobuf"

    @property
    def encoding(self) -> Encoding.ValueType:
        """The contract's value."""
        json = self is EncodingName.JSON
        return Encoding.ENCODING_JSON if json else Encoding.ENCODING_PROTOBUF
