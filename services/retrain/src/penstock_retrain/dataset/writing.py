"""A dataset on disk: Parquet for each split, and `dataset.json`, which says what it is.

`dataset.json` is written last: a directory without it is no dataset, whatever else is there. The
digest is of the rows, not of the files: another version of Parquet gives the same one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from penstock_retrain.dataset.errors import DatasetError
from penstock_retrain.dataset.examples import Coordinates, Example, Pool, Split
from penstock_retrain.dataset.names import Source
from penstock_retrain.dataset.rows import Message

__all__ = [
    "DATASET",
    "Dataset",
    "Lineage",
    "digest_of",
    "open_dataset",
    "read_split",
    "verify_dataset",
    "write_dataset",
]

DATASET = "dataset.json"
FORMAT = 1
_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("group", pa.string()),
        ("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        ("prompt", pa.string()),
        ("target", pa.string()),
        ("rejected", pa.string()),
        ("label_source", pa.string()),
        ("labels", pa.map_(pa.string(), pa.string())),
        ("time_ms", pa.int64()),
        ("pool", pa.string()),
        ("sources", pa.list_(pa.string())),
    ]
)


@dataclasses.dataclass(frozen=True)
class Lineage:
    """Where a dataset comes from.

    Attributes:
        sources: By partition, the first and last offset that was read.
        parameters: Model, window, policy: with the sources all that the rows depend on.
        code: The version of the code that chose them.
        left_out: How many requests are not in it, by reason.
    """

    sources: Mapping[Source, tuple[int, int]]
    parameters: Mapping[str, Any]
    code: Mapping[str, str]
    left_out: Mapping[str, int]


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A dataset that was written.

    Attributes:
        path: Its directory.
        digest: SHA-256 of its rows, hexadecimal.
        rows: In all splits.
        splits: How many in each.
        sources: By partition, the first and last offset that was read.
        parameters: What it was made by.
        code: The version of the code that made it.
        left_out: How many requests are not in it, by reason.
        counts: Rows by pool and by source of the label, and those with a rejected answer.
    """

    path: Path
    digest: str
    rows: int
    splits: Mapping[Split, int]
    sources: Mapping[Source, tuple[int, int]]
    parameters: Mapping[str, Any]
    code: Mapping[str, str]
    left_out: Mapping[str, int]
    counts: Mapping[str, int]

    def facts(self) -> dict[str, Any]:
        """What a job keeps of it, as JSON: no text of requests or answers."""
        return {"path": str(self.path), **_described(self)}


def digest_of(splits: Mapping[Split, Sequence[Example]]) -> str:
    """One digest for all rows with their splits, in the order of their ids."""
    total = hashlib.sha256()
    for split in Split:
        for example in sorted(splits.get(split, ()), key=lambda e: e.id):
            row = json.dumps(_row(example), sort_keys=True, ensure_ascii=False)
            total.update(f"{split}\n{row}\n".encode())
    return total.hexdigest()


def write_dataset(
    path: Path, splits: Mapping[Split, Sequence[Example]], lineage: Lineage
) -> Dataset:
    """Writes a dataset; whatever an earlier run left there is replaced. Blocks.

    Raises:
        OSError: It cannot be written.
    """
    path.mkdir(parents=True, exist_ok=True)
    (path / DATASET).unlink(missing_ok=True)
    for split in Split:
        _write_rows(path / f"{split}.parquet", splits.get(split, ()))
    counts = {split: len(splits.get(split, ())) for split in Split}
    dataset = Dataset(
        path=path,
        digest=digest_of(splits),
        rows=sum(counts.values()),
        splits=counts,
        sources=lineage.sources,
        parameters=lineage.parameters,
        code=lineage.code,
        left_out=lineage.left_out,
        counts=_counts(example for split in Split for example in splits.get(split, ())),
    )
    described = json.dumps(_described(dataset), indent=1, sort_keys=True, ensure_ascii=False)
    _place(path / DATASET, described.encode())
    return dataset


def open_dataset(path: Path) -> Dataset:
    """What a directory says that it holds; its rows are not looked at.

    Raises:
        DatasetError: It is no dataset, or one of another format.
    """
    try:
        said = json.loads((path / DATASET).read_text(encoding="utf-8"))
        if said["format"] != FORMAT:
            raise DatasetError(f"{path} has format {said['format']}, and {FORMAT} is read here")
        return Dataset(
            path=path,
            digest=said["digest"],
            rows=said["rows"],
            splits={Split(name): count for name, count in said["splits"].items()},
            sources={
                Source.parse(name): (first, last) for name, (first, last) in said["sources"].items()
            },
            parameters=said["parameters"],
            code=said["code"],
            left_out=said["left_out"],
            counts=said["counts"],
        )
    except FileNotFoundError:
        raise DatasetError(f"{path} is no dataset: it has no {DATASET}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DatasetError(f"{path / DATASET} is not what it should be: {error!r}") from None


def verify_dataset(path: Path) -> Dataset:
    """The same, with its rows compared with the digest. Reads all of it.

    Raises:
        DatasetError: The rows are others.
    """
    dataset = open_dataset(path)
    found = digest_of({split: list(read_split(path, split)) for split in Split})
    if found != dataset.digest:
        raise DatasetError(
            f"{path} holds rows of digest {found} where {DATASET} says {dataset.digest}: "
            "make the dataset anew"
        )
    return dataset


def read_split(path: Path, split: Split) -> Iterator[Example]:
    """A split's rows, by id.

    Raises:
        DatasetError: The file is not there or is none.
    """
    file = path / f"{split}.parquet"
    try:
        table = pq.ParquetFile(file)
        for batch in table.iter_batches(batch_size=1000):
            yield from (_example(row) for row in batch.to_pylist())
    except (OSError, pa.ArrowException) as error:
        raise DatasetError(f"{file} cannot be read: {type(error).__name__}") from error


def _write_rows(path: Path, examples: Sequence[Example]) -> None:
    rows = [{**_row(e), "labels": sorted(e.labels.items())} for e in examples]
    sink = pa.BufferOutputStream()
    table = pa.Table.from_pylist(rows, schema=_SCHEMA)
    pq.write_table(table, sink, compression="zstd")
    _place(path, sink.getvalue().to_pybytes())


def _place(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".tmp-{path.name}")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _row(example: Example) -> dict[str, Any]:
    return {
        "id": example.id,
        "group": example.group,
        "messages": [dataclasses.asdict(message) for message in example.messages],
        "prompt": example.prompt,
        "target": example.target,
        "rejected": example.rejected,
        "label_source": example.label_source,
        "labels": dict(example.labels),
        "time_ms": example.time_ms,
        "pool": example.pool.value,
        "sources": [str(each) for each in example.sources],
    }


def _example(row: Mapping[str, Any]) -> Example:
    return Example(
        id=row["id"],
        group=row["group"],
        messages=tuple(Message(**each) for each in row["messages"]),
        prompt=row["prompt"],
        target=row["target"],
        rejected=row["rejected"],
        label_source=row["label_source"],
        labels=dict(row["labels"]),
        time_ms=row["time_ms"],
        pool=Pool(row["pool"]),
        sources=tuple(_coordinates(each) for each in row["sources"]),
    )


def _coordinates(text: str) -> Coordinates:
    source, _, offset = text.rpartition("@")
    return Coordinates(Source.parse(source), int(offset))


def _counts(examples: Iterable[Example]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for example in examples:
        names = [f"pool.{example.pool}", f"label.{example.label_source}"]
        if example.rejected is not None:
            names.append("preferences")
        for name in names:
            counts[name] = counts.get(name, 0) + 1
    return counts


def _described(dataset: Dataset) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "digest": dataset.digest,
        "rows": dataset.rows,
        "splits": {split.value: count for split, count in dataset.splits.items()},
        "counts": dict(dataset.counts),
        "left_out": dict(dataset.left_out),
        "sources": {str(s): list(offsets) for s, offsets in sorted(dataset.sources.items())},
        "parameters": dict(dataset.parameters),
        "code": dict(dataset.code),
    }
