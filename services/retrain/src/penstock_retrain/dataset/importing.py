"""Datasets from files and to files, and selections from what people write."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from penstock_retrain.code import code_version
from penstock_retrain.dataset.building import Selection
from penstock_retrain.dataset.errors import DatasetError
from penstock_retrain.dataset.examples import Example, Split
from penstock_retrain.dataset.jsonl import Form, as_line, parse_lines
from penstock_retrain.dataset.policy import DatasetPolicy, SplitShares
from penstock_retrain.dataset.splits import split_of
from penstock_retrain.dataset.writing import (
    DATASET,
    Dataset,
    Lineage,
    open_dataset,
    read_split,
    write_dataset,
)

__all__ = ["export_lines", "import_lines", "selection_again", "selection_of"]


def import_lines(data: bytes, out: Path, form: str | None, shares: SplitShares) -> Dataset:
    """A dataset of a file's lines.

    Raises:
        Faults: Lines have faults.
        DatasetError: There is no line, or the directory holds another dataset.
    """
    lines = data.splitlines()
    examples = parse_lines(lines, None if form is None else Form(form))
    if not examples:
        raise DatasetError("there is no line")
    parameters = {
        "imported": hashlib.sha256(data).hexdigest(),
        "split": shares.model_dump(mode="json"),
    }
    if (out / DATASET).exists() and dict(open_dataset(out).parameters) != parameters:
        raise DatasetError(f"{out} holds another dataset: take another directory")
    splits: dict[Split, list[Example]] = {split: [] for split in Split}
    for example in sorted(examples, key=lambda e: e.id):
        splits[split_of(example.group, shares)].append(example)
    twice = len(lines) - len(examples)
    left_out = {"repeated_line": twice} if twice else {}
    return write_dataset(out, splits, Lineage({}, parameters, code_version(__package__), left_out))


def export_lines(path: Path, form: str, split: str) -> tuple[Sequence[str], int]:
    """A dataset's lines, and how many rows the form cannot say.

    Raises:
        DatasetError: It cannot be read.
    """
    open_dataset(path)
    found = [as_line(example, Form(form)) for example in _rows(path, split)]
    lines = [line for line in found if line is not None]
    return lines, len(found) - len(lines)


def selection_of(
    model: str, policy: str, until_ms: int | None, drifted: Sequence[str]
) -> Selection:
    """A selection as people name it.

    Raises:
        PolicyError: The policy says what it must not.
    """
    now_ms = time.time_ns() // 1_000_000
    return Selection(model, DatasetPolicy.parse(policy), until_ms or now_ms, drifted=tuple(drifted))


def selection_again(path: Path) -> Selection:
    """The selection of an earlier dataset, from the offsets that there were then.

    Raises:
        DatasetError: It is no dataset of collected rows.
    """
    dataset = open_dataset(path)
    said = dataset.parameters
    if "policy" not in said:
        raise DatasetError(f"{path} was not selected but imported: import its file again")
    return Selection(
        model=said["model"],
        policy=DatasetPolicy.of(said["policy"]),
        until_ms=said["until_ms"],
        onset_ms=said["onset_ms"],
        drifted=tuple(said["drifted"]),
        upto={source: last for source, (_, last) in dataset.sources.items()},
    )


def _rows(path: Path, split: str) -> Iterator[Example]:
    for each in Split:
        if split in ("all", each.value):
            yield from read_split(path, each)
