"""From collected files to a dataset: who is in it, who is not and why, and the same again."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from penstock.personal_data import has_personal_data
from penstock_retrain.dataset.building import Selection, select_dataset
from penstock_retrain.dataset.errors import DatasetError, NotEnough
from penstock_retrain.dataset.examples import Example, Split
from penstock_retrain.dataset.importing import selection_again
from penstock_retrain.dataset.names import Kind
from penstock_retrain.dataset.policy import DatasetPolicy
from penstock_retrain.dataset.rows import Passage
from penstock_retrain.dataset.store import FileStore
from penstock_retrain.dataset.writing import Dataset, read_split, verify_dataset
from tests.unit.retrain.dataset.collected_rows import (
    HOUR_MS,
    NOW_MS,
    Said,
    keep,
    put,
    rows_of,
    source,
)

DAY_MS = 24 * HOUR_MS
WORDS = [f"w{n}" for n in range(400)]
WHOLE = {"validation": 0, "golden": 0}
SPLIT = {"validation": 0.1, "golden": 0.1}
POLICY: dict[str, Any] = {"min_rows": 1, "label_field": "category", "split": WHOLE}


def text(n: int) -> str:
    """Nothing like any other."""
    return " ".join(random.Random(n).sample(WORDS, 12))


def said(n: int, **more: Any) -> Said:
    return Said(**{"id": f"r{n:04d}", "text": text(n), "label": "access", **more})


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(str(tmp_path / "collected"))


async def selected(
    store: FileStore, out: Path, policy: dict[str, Any] | None = None, **more: Any
) -> Dataset:
    chosen = DatasetPolicy.of({**POLICY, **(policy or {})})
    return await select_dataset(store, Selection("triage", chosen, NOW_MS, **more), out)


def rows(dataset: Dataset) -> dict[str, Example]:
    return {e.id: e for split in Split for e in read_split(dataset.path, split)}


async def test_a_request_its_answer_and_its_label_become_a_row(
    store: FileStore, tmp_path: Path
) -> None:
    keep(store, [said(1, labels={"task": "refund"}), said(2, label=None, correction="No.")])
    dataset = await selected(store, tmp_path / "d")
    found = rows(dataset)
    assert set(found) == {"r0001", "r0002"}
    one, two = found["r0001"], found["r0002"]
    assert [m.content for m in one.messages] == ["Sort the ticket.", text(1)]
    assert one.target == '{"category": "access", "priority": "low"}'
    assert one.rejected == '{"category": "billing", "priority": "low"}'
    assert (one.label_source, one.pool, dict(one.labels)) == ("label", "recent", {"task": "refund"})
    assert (two.target, two.label_source) == ("No.", "correction")
    # Down to the records: admitted@0, responses@0, feedback@0.
    assert [str(each) for each in one.sources] == [
        f"{source(kind)}@0" for kind in (Kind.REQUESTS, Kind.RESPONSES, Kind.FEEDBACK)
    ]
    assert dataset.sources[source(Kind.RESPONSES)] == (0, 3)
    assert dataset.parameters["model"] == "triage"
    assert len(dataset.code["source"]) == len(dataset.digest) == 64


async def test_each_reason_is_counted(store: FileStore, tmp_path: Path) -> None:
    everybody = [
        said(1),
        said(2, response={"purpose": "probe"}),
        said(3, response={"model": "other"}),
        said(4, response={"outcome": "failed"}),
        said(5, labels={"golden": "v1"}),
        said(6, labels={"penstock-teacher": "1"}),
        said(7, label=None),
        said(8, answer="no json"),  # a plain label is for a field of JSON
        said(9, text=text(1) + " please", age_ms=2 * HOUR_MS),
        said(10, text=f"{text(10)} mail me at ann@example.com"),
        said(11, text=text(11) * 900),
        said(12, age_ms=40 * DAY_MS),  # not even read
    ]
    keep(store, everybody)
    dataset = await selected(store, tmp_path / "d", {"personal_data": "drop"})
    assert set(rows(dataset)) == {"r0001"}
    assert dict(dataset.left_out) == {
        "not_a_clients": 2,
        "golden_set": 1,
        "other_model": 1,
        "not_answered": 1,
        "unlabelled": 1,
        "label_unusable": 1,
        "too_long": 1,
        "personal_data": 1,
        "near_duplicate": 1,
    }


async def test_a_score_makes_no_cut_off_answer_right(store: FileStore, tmp_path: Path) -> None:
    liked = {"label": None, "score": 1.0}
    keep(store, [said(1, **liked), said(2, **liked, response={"finish": "length"})])
    dataset = await selected(store, tmp_path / "d", {"labels": ["score"]})
    assert (set(rows(dataset)), dict(dataset.left_out)) == ({"r0001"}, {"cut_off": 1})


async def test_a_label_that_cannot_be_written_ends_nothing(
    store: FileStore, tmp_path: Path
) -> None:
    keep(store, [said(1), said(2, label='{"category": "\\ud800"}')])
    dataset = await selected(store, tmp_path / "d")
    assert (set(rows(dataset)), dict(dataset.left_out)) == ({"r0001"}, {"label_unusable": 1})


async def test_a_request_that_was_never_collected_is_counted(
    store: FileStore, tmp_path: Path
) -> None:
    found = rows_of([said(1), said(2)])
    put(store, Kind.REQUESTS, found[Kind.REQUESTS][:1])
    put(store, Kind.RESPONSES, found[Kind.RESPONSES])
    put(store, Kind.FEEDBACK, found[Kind.FEEDBACK])
    dataset = await selected(store, tmp_path / "d")
    assert (set(rows(dataset)), dict(dataset.left_out)) == ({"r0001"}, {"no_request": 1})


async def test_personal_data_are_redacted_in_question_and_answers(
    store: FileStore, tmp_path: Path
) -> None:
    mail = "ann@example.com"
    keep(
        store,
        [said(1, text=f"{text(1)} {mail}", label=None, answer=mail, correction=f"write to {mail}")],
    )
    (row,) = rows(await selected(store, tmp_path / "d")).values()
    assert row.messages[1].content == f"{text(1)} [email]"
    assert (row.target, row.rejected) == ("write to [email]", "[email]")
    for path in (tmp_path / "d").iterdir():
        assert mail.encode() not in path.read_bytes()
    assert not has_personal_data(row.target)


async def test_pools_have_their_shares(store: FileStore, tmp_path: Path) -> None:
    drifted = [said(n, labels={"task": "refund"}) for n in range(60)]
    recent = [said(100 + n, labels={"task": "other"}) for n in range(60)]
    old = [said(200 + n, age_ms=3 * DAY_MS) for n in range(60)]
    keep(store, [*old, *drifted, *recent])
    policy = {"max_rows": 100, "replay": {"share": 0.2}, "drifted": {"share": 0.6}}
    dataset = await selected(store, tmp_path / "d", policy, drifted=["task=refund", ""])
    assert Counter(e.pool.value for e in rows(dataset).values()) == {
        "replay": 20,
        "drifted": 48,
        "recent": 32,
    }
    assert dict(dataset.left_out) == {"replay_share": 40, "max_rows": 40}
    # Where recent rows are scarce older ones have no more than their share of what there is.
    scarce = await selected(store, tmp_path / "e", {"max_rows": 500, "replay": {"share": 0.25}})
    assert (scarce.counts["pool.recent"], scarce.counts["pool.replay"]) == (120, 40)


async def test_what_was_before_the_onset_is_not_recent(store: FileStore, tmp_path: Path) -> None:
    keep(store, [said(1, age_ms=3 * HOUR_MS), *(said(n, age_ms=HOUR_MS) for n in range(2, 6))])
    dataset = await selected(store, tmp_path / "d", onset_ms=NOW_MS - 2 * HOUR_MS)
    pools = {e.id: e.pool.value for e in rows(dataset).values()}
    assert pools == {"r0001": "replay", **{f"r{n:04d}": "recent" for n in range(2, 6)}}


async def test_of_two_alike_the_newer_stays(store: FileStore, tmp_path: Path) -> None:
    keep(
        store,
        [
            said(1, text=text(1), age_ms=5 * HOUR_MS, label="bug"),
            said(2, text=text(1).upper(), age_ms=HOUR_MS, label="access"),
        ],
    )
    (row,) = rows(await selected(store, tmp_path / "d")).values()
    assert (row.id, row.target) == ("r0002", '{"category": "access", "priority": "low"}')
    both = await selected(store, tmp_path / "e", {"near_duplicates": None})
    assert both.rows == 2


async def test_the_same_question_about_other_passages_is_another(
    store: FileStore, tmp_path: Path
) -> None:
    found = rows_of([said(1, text="what does it say"), said(2, text="what does it say")])
    for n, row in enumerate(found[Kind.REQUESTS]):
        passages = (Passage(text(n), f"doc-{n}"),)
        found[Kind.REQUESTS][n] = dataclasses.replace(row, passages=passages)  # type: ignore[call-arg]
    for kind, each in found.items():
        put(store, kind, each)
    chosen = rows(await selected(store, tmp_path / "d"))
    assert len(chosen) == 2
    # As the engine renders it: before the last turn of the user.
    assert [m.role for m in chosen["r0001"].messages] == ["system", "system", "user"]
    assert chosen["r0001"].messages[1].content == f"[doc-0] {text(0)}"


async def test_a_key_is_on_one_side_only_and_golden_keys_stay_golden(
    store: FileStore, tmp_path: Path
) -> None:
    keep(store, [said(n, key=f"key-{n % 40}") for n in range(400)])
    first = await selected(store, tmp_path / "d", {"split": SPLIT})
    second = await selected(store, tmp_path / "e", {"split": SPLIT, "seed": 9, "max_rows": 300})
    sides: dict[str, set[Split]] = {}
    for dataset in (first, second):
        for split in Split:
            for example in read_split(dataset.path, split):
                sides.setdefault(example.group, set()).add(split)
    assert len(sides) == 40
    assert all(len(found) == 1 for found in sides.values())
    assert first.splits[Split.GOLDEN] > 0
    assert first.splits[Split.VALIDATION] > 0


async def test_balance_bounds_the_training_rows_alone(store: FileStore, tmp_path: Path) -> None:
    keep(store, [said(n, label=("bug", "access", "billing")[min(n % 10, 2)]) for n in range(400)])
    policy = {"balance": {"by": "target.category", "max_share": 0.4}, "split": SPLIT}
    dataset = await selected(store, tmp_path / "d", policy)
    train = Counter(e.target for e in read_split(dataset.path, Split.TRAIN))
    assert max(train.values()) <= 0.4 * train.total()
    golden = Counter(e.target for e in read_split(dataset.path, Split.GOLDEN))
    assert max(golden.values()) > 0.6 * golden.total()


async def test_the_same_inputs_give_the_same_digest_however_files_are_cut(
    tmp_path: Path,
) -> None:
    everybody = [said(n, key=f"key-{n % 30}") for n in range(200)]
    digests = set()
    for n, per_file in enumerate((1000, 7)):
        store = FileStore(str(tmp_path / f"collected-{n}"))
        keep(store, everybody, per_file)
        dataset = await selected(store, tmp_path / f"d{n}", {"max_rows": 80})
        digests.add((dataset.digest, dataset.rows, tuple(sorted(dataset.sources.items()))))
    assert len(digests) == 1
    other = await selected(store, tmp_path / "other", {"max_rows": 80, "seed": 1})
    assert other.digest != dataset.digest


async def test_files_that_overlap_count_once(store: FileStore, tmp_path: Path) -> None:
    everybody = [said(n) for n in range(30)]
    keep(store, everybody)
    alone = await selected(store, tmp_path / "alone")
    # What an owner wrote that slept through the loss of its partition.
    for kind, each in rows_of(everybody).items():
        put(store, kind, each[:20])
    both = await selected(store, tmp_path / "both")
    assert (both.digest, both.rows) == (alone.digest, alone.rows)


async def test_an_earlier_dataset_is_made_again_from_its_offsets(
    store: FileStore, tmp_path: Path
) -> None:
    keep(store, [said(n) for n in range(40)])
    first = await selected(store, tmp_path / "first")
    # Later more was collected of the same time.
    late = rows_of([said(n) for n in range(50)])
    for kind, each in late.items():
        put(store, kind, each[40:])
    now = await selected(store, tmp_path / "now")
    again = await select_dataset(store, selection_again(tmp_path / "first"), tmp_path / "again")
    assert now.rows > first.rows
    assert (again.digest, again.sources) == (first.digest, first.sources)
    assert verify_dataset(again.path) == again


async def test_a_dataset_that_is_there_is_returned_and_another_one_refused(
    store: FileStore, tmp_path: Path
) -> None:
    keep(store, [said(n) for n in range(20)])
    out = tmp_path / "d"
    first = await selected(store, out)
    written = (out / "train.parquet").stat().st_mtime_ns
    assert await selected(store, out) == first
    assert (out / "train.parquet").stat().st_mtime_ns == written
    with pytest.raises(DatasetError, match="another directory"):
        await selected(store, out, {"seed": 3})
    # What a killed run left is replaced.
    (out / "dataset.json").unlink()
    (out / "train.parquet").write_bytes(b"half")
    assert (await selected(store, out)).digest == first.digest
    assert verify_dataset(out).digest == first.digest


async def test_too_few_rows_say_why(store: FileStore, tmp_path: Path) -> None:
    keep(store, [said(1), said(2, label=None)])
    with pytest.raises(NotEnough, match=r"min_rows is 50; left out: unlabelled 1"):
        await selected(store, tmp_path / "d", {"min_rows": 50})
    assert not (tmp_path / "d" / "dataset.json").exists()
    with pytest.raises(NotEnough):
        await selected(FileStore(str(tmp_path / "nowhere")), tmp_path / "e")


async def test_rows_that_were_tampered_with_are_found(store: FileStore, tmp_path: Path) -> None:
    keep(store, [said(n) for n in range(20)])
    one = await selected(store, tmp_path / "one")
    await selected(store, tmp_path / "two", {"seed": 1, "max_rows": 10})
    (tmp_path / "one" / "train.parquet").write_bytes(
        (tmp_path / "two" / "train.parquet").read_bytes()
    )
    with pytest.raises(DatasetError, match="make the dataset anew"):
        verify_dataset(one.path)
