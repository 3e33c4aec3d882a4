"""Rows as Parquet and back, through pyarrow."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from penstock_retrain.dataset.errors import DatasetError
from penstock_retrain.dataset.names import Kind
from penstock_retrain.dataset.rows import (
    FeedbackRow,
    Message,
    Passage,
    RequestRow,
    ResponseRow,
    Row,
)

__all__ = ["as_parquet", "read_columns", "read_rows"]

_LABELS = pa.map_(pa.string(), pa.string())
_WHERE = [
    ("partition", pa.int32()),
    ("offset", pa.int64()),
    ("time_ms", pa.int64()),
    ("key", pa.string()),
    ("request_id", pa.string()),
    ("tenant", pa.string()),
]
_SCHEMAS: Mapping[Kind, pa.Schema] = {
    Kind.REQUESTS: pa.schema(
        [
            *_WHERE,
            ("model", pa.string()),
            ("variant", pa.string()),
            ("route_version", pa.uint64()),
            ("purpose", pa.string()),
            ("ordering_key", pa.string()),
            ("labels", _LABELS),
            ("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
            ("prompt", pa.string()),
            ("passages", pa.list_(pa.struct([("text", pa.string()), ("name", pa.string())]))),
            ("schema", pa.string()),
        ]
    ),
    Kind.RESPONSES: pa.schema(
        [
            *_WHERE,
            ("outcome", pa.string()),
            ("text", pa.string()),
            ("finish", pa.string()),
            ("model", pa.string()),
            ("variant", pa.string()),
            ("adapter", pa.string()),
            ("route_version", pa.uint64()),
            ("purpose", pa.string()),
            ("cached", pa.bool_()),
            ("labels", _LABELS),
            ("prompt_tokens", pa.uint32()),
            ("completion_tokens", pa.uint32()),
            ("total_s", pa.float64()),
        ]
    ),
    Kind.FEEDBACK: pa.schema(
        [
            *_WHERE,
            ("feedback_id", pa.string()),
            ("label", pa.string()),
            ("score", pa.float64()),
            ("correction", pa.string()),
            ("business_value", pa.float64()),
            ("value_unit", pa.string()),
        ]
    ),
}
_ROWS: Mapping[Kind, type[Any]] = {
    Kind.REQUESTS: RequestRow,
    Kind.RESPONSES: ResponseRow,
    Kind.FEEDBACK: FeedbackRow,
}


def as_parquet(kind: Kind, rows: Sequence[Row]) -> bytes:
    """A file's bytes. Blocks for about 10 us a row.

    Raises:
        DatasetError: A row has a value that its column cannot hold.
    """
    schema = _SCHEMAS[kind]
    try:
        columns = [
            pa.array([_plain(getattr(row, field.name)) for row in rows], type=field.type)
            for field in schema
        ]
    except (pa.ArrowException, OverflowError, TypeError) as error:
        # Its message may quote the value.
        raise DatasetError(f"{kind} do not fit their columns: {type(error).__name__}") from None
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_arrays(columns, schema=schema), sink, compression="zstd")
    data: bytes = sink.getvalue().to_pybytes()
    return data


def read_rows(kind: Kind, data: bytes) -> Iterator[Row]:
    """A file's rows, in their order.

    Raises:
        pyarrow.ArrowInvalid: The bytes are no Parquet.
    """
    make = _ROWS[kind]
    names = {field.name for field in dataclasses.fields(make)}
    table = pq.read_table(pa.BufferReader(data))
    for batch in table.to_batches(max_chunksize=1000):
        for found in batch.to_pylist():
            yield make(**{name: _shaped(name, found[name]) for name in names & found.keys()})


def read_columns(data: bytes, names: Sequence[str]) -> list[Mapping[str, Any]]:
    """Some columns of a file, row by row."""
    rows: list[Mapping[str, Any]] = pq.read_table(
        pa.BufferReader(data), columns=list(names)
    ).to_pylist()
    return rows


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return sorted(value.items())
    if isinstance(value, tuple):
        return [dataclasses.asdict(each) for each in value]
    return value


def _shaped(name: str, value: Any) -> Any:
    match name:
        case "labels":
            return dict(value)
        case "messages":
            return tuple(Message(**each) for each in value)
        case "passages":
            return tuple(Passage(**each) for each in value)
    return value
