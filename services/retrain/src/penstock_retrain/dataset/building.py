"""Makes a dataset of what was collected: reads, selects, asks the teacher, splits, writes."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from penstock_retrain.code import code_version
from penstock_retrain.dataset.collected import Collected
from penstock_retrain.dataset.errors import DatasetError, NotEnough
from penstock_retrain.dataset.examples import Example, Split, Tally
from penstock_retrain.dataset.gathering import gather
from penstock_retrain.dataset.names import Source
from penstock_retrain.dataset.policy import DatasetPolicy
from penstock_retrain.dataset.selection import Window, finish, prepare
from penstock_retrain.dataset.store import FileStore
from penstock_retrain.dataset.teacher import AnswerLog, OpenAITeacher, Teacher, teach
from penstock_retrain.dataset.writing import Dataset, Lineage, open_dataset, write_dataset

__all__ = ["Selection", "select_dataset"]

ANSWERS = "teacher.jsonl"
Report = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Selection:
    """What a dataset is to be made of; the same one gives the same digest.

    Attributes:
        model: The route whose answers are learnt from.
        policy: Which rows, and how they are labelled and split.
        until_ms: Nothing from here on, by the log's time, milliseconds since 1970.
        onset_ms: When the drift began: what was before is not recent. None where none is known.
        drifted: Segments that drifted, as drift names them: `label=value`.
        upto: By partition, the last offset that counts: makes an earlier dataset again. None
            takes all that is there.
    """

    model: str
    policy: DatasetPolicy
    until_ms: int
    onset_ms: int | None = None
    drifted: Sequence[str] = ()
    upto: Mapping[Source, int] | None = None

    def parameters(self) -> dict[str, Any]:
        """All of it but the offsets, as JSON."""
        return {
            "model": self.model,
            "policy": self.policy.parameters(),
            "until_ms": self.until_ms,
            "onset_ms": self.onset_ms,
            "drifted": sorted(self.drifted),
        }


async def select_dataset(
    store: FileStore,
    selection: Selection,
    out: Path,
    *,
    teacher: Teacher | None = None,
    report: Report = lambda message: None,
) -> Dataset:
    """Makes a dataset, or returns the one that is there already. Does not block the loop.

    A run that was killed is run again with the same arguments: what it left is replaced, what a
    teacher answered is not asked again.

    Args:
        store: Where the collector's files are.
        selection: What of them.
        out: The dataset's directory; of this dataset alone.
        teacher: Asked instead of the one that the policy names.
        report: Told how far it is, in words without text of requests.

    Raises:
        NotEnough: Fewer rows than the policy asks for.
        TeacherError: The teacher cannot be asked.
        DatasetError: The directory holds another dataset.
        OSError: The store cannot be read, or the dataset not written.
    """
    code = code_version(__package__)
    found = await asyncio.to_thread(_finished, out, selection, code)
    if found is not None:
        return found
    tally = Tally()
    report("reading what was collected")
    examples, sources = await asyncio.to_thread(_prepared, store, selection, tally)
    report(f"{len(examples)} rows to choose from")
    labelled = await _taught(examples, selection.policy, teacher, out / ANSWERS, report)

    def write() -> Dataset:
        splits = finish(labelled, selection.policy, tally)
        _check(splits, selection.policy, tally)
        lineage = Lineage(sources, selection.parameters(), code, tally.counts())
        dataset = write_dataset(out, splits, lineage)
        (out / ANSWERS).unlink(missing_ok=True)
        return dataset

    dataset = await asyncio.to_thread(write)
    report(f"{dataset.rows} rows written")
    return dataset


def _finished(out: Path, selection: Selection, code: Mapping[str, str]) -> Dataset | None:
    try:
        dataset = open_dataset(out)
    except DatasetError:
        return None
    if dataset.parameters != selection.parameters():
        raise DatasetError(f"{out} holds a dataset of other parameters: take another directory")
    return dataset if dict(dataset.code) == dict(code) else None


def _prepared(
    store: FileStore, selection: Selection, tally: Tally
) -> tuple[list[Example], Mapping[Source, tuple[int, int]]]:
    policy = selection.policy
    window = Window.of(
        policy, selection.until_ms, onset_ms=selection.onset_ms, drifted=selection.drifted
    )
    collected = Collected(store, window.since_ms, window.until_ms, upto=selection.upto)
    candidates = [
        candidate
        for place in collected.places
        for candidate in gather(
            functools.partial(collected.read, place), selection.model, policy, window, tally
        )
    ]
    return prepare(candidates, policy, window, tally), dict(collected.ranges)


async def _taught(
    examples: Sequence[Example],
    policy: DatasetPolicy,
    teacher: Teacher | None,
    kept: Path,
    report: Report,
) -> Sequence[Example]:
    if policy.teacher is None or all(example.target for example in examples):
        return examples

    def taught(done: int, of: int) -> None:
        if done % 50 == 0 or done == of:
            report(f"the teacher answered {done} of {of}")

    answers = await asyncio.to_thread(AnswerLog, kept)
    concurrency = policy.teacher.concurrency
    if teacher is not None:
        return await teach(examples, teacher, answers, concurrency=concurrency, report=taught)
    async with OpenAITeacher(policy.teacher) as found:
        return await teach(examples, found, answers, concurrency=concurrency, report=taught)


def _check(splits: Mapping[Split, Sequence[Example]], policy: DatasetPolicy, tally: Tally) -> None:
    found = len(splits[Split.TRAIN])
    if found < policy.min_rows:
        reasons = ", ".join(f"{name} {count}" for name, count in tally.counts().items())
        raise NotEnough(
            f"{found} rows to train on, and the policy's min_rows is {policy.min_rows}; left out: "
            f"{reasons or 'none'}"
        )
