"""Which checkpoint a training goes on from: whole ones only, whatever a killed process left."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from penstock_retrain.training.checkpoints import best_step, found, last_whole, mark


def write(
    place: Path, step: int, losses: dict[int, float] | None = None, whole: bool = True
) -> Path:
    path = place / f"checkpoint-{step}"
    path.mkdir(parents=True)
    (path / "weights").write_bytes(b"w" * 100)
    history = [{"step": at, "eval_loss": loss} for at, loss in (losses or {}).items()]
    state = {"global_step": step, "log_history": history}
    (path / "trainer_state.json").write_text(json.dumps(state))
    if whole:
        mark(path)
    return path


def last(place: Path) -> int | None:
    checkpoint = last_whole(found(place))
    return None if checkpoint is None else checkpoint.step


def test_there_is_none_in_the_beginning(tmp_path: Path) -> None:
    assert last(tmp_path / "nowhere") is None
    assert best_step(found(tmp_path)) is None


def test_numbers_count_and_names_do_not(tmp_path: Path) -> None:
    for step in (9, 10, 100):
        write(tmp_path, step)
    (tmp_path / "checkpoint-last").mkdir()
    (tmp_path / "1000").mkdir()
    assert [each.step for each in found(tmp_path)] == [9, 10, 100]
    assert last(tmp_path) == 100


def test_half_a_checkpoint_does_not_count(tmp_path: Path) -> None:
    write(tmp_path, 10)
    write(tmp_path, 20, whole=False)
    assert last(tmp_path) == 10


@pytest.mark.parametrize("harm", ["emptied", "removed", "marker", "state"])
def test_a_checkpoint_that_lost_something_does_not_count(tmp_path: Path, harm: str) -> None:
    write(tmp_path, 10)
    path = write(tmp_path, 20)
    match harm:
        case "emptied":
            (path / "weights").write_bytes(b"")
        case "removed":
            (path / "weights").unlink()
        case "marker":
            (path / "whole.json").write_bytes(b"{")
        case "state":
            (path / "trainer_state.json").write_bytes(b"")
    assert last(tmp_path) == 10


def test_the_weights_are_those_with_the_lowest_loss_on_held_out_rows(tmp_path: Path) -> None:
    losses = {10: 2.0, 20: 1.0, 30: 1.5}
    write(tmp_path, 20, {10: 2.0, 20: 1.0})
    write(tmp_path, 30, losses)
    assert best_step(found(tmp_path)) == 20


def test_weights_that_are_gone_are_not_chosen(tmp_path: Path) -> None:
    write(tmp_path, 20, {10: 0.5, 20: 1.0})
    write(tmp_path, 30, {10: 0.5, 20: 1.0, 30: 0.9})
    assert best_step(found(tmp_path)) == 30


def test_without_measurements_the_last_weights_count(tmp_path: Path) -> None:
    write(tmp_path, 20)
    write(tmp_path, 30)
    assert best_step(found(tmp_path)) == 30


def test_a_loss_that_is_no_number_is_not_the_lowest(tmp_path: Path) -> None:
    write(tmp_path, 20, {10: 2.0, 20: float("nan")})
    write(tmp_path, 30, {10: 2.0, 20: float("nan"), 30: 1.0})
    assert best_step(found(tmp_path)) == 30
