"""`penstock dataset`: what people type, what they read, and what a mistake tells them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from penstock_retrain.dataset.commands import app
from penstock_retrain.dataset.store import FileStore
from tests.unit.retrain.dataset.collected_rows import NOW_MS, keep
from tests.unit.retrain.dataset.test_select_dataset import said


def invoke(*arguments: str | Path, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments], input=stdin)


def lines(count: int) -> str:
    turns = (
        [{"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": f"a{n}"}]
        for n in range(count)
    )
    return "".join(json.dumps({"messages": each}) + "\n" for each in turns)


def test_in_shown_and_out_again(tmp_path: Path) -> None:
    result = invoke("import", "-", "--out", tmp_path / "d", stdin=lines(40) + lines(1))
    assert result.exit_code == 0, result.output
    assert "40 rows" in result.stdout
    shown = json.loads(invoke("show", tmp_path / "d", "--verify", "--json").stdout)
    assert shown["splits"].keys() == {"train", "validation", "golden"}
    assert (shown["rows"], shown["left_out"]) == (40, {"repeated_line": 1})
    assert shown["digest"] in invoke("show", tmp_path / "d").stdout
    out = invoke("export", tmp_path / "d", "--split", "all")
    assert sorted(out.stdout.splitlines()) == sorted(lines(40).splitlines())
    file = tmp_path / "train.jsonl"
    assert invoke("export", tmp_path / "d", "--out", file).exit_code == 0
    assert len(file.read_text().splitlines()) == shown["splits"]["train"]
    # The same file gives the same dataset.
    again = invoke("import", "-", "--out", tmp_path / "e", stdin=lines(40) + lines(1))
    assert shown["digest"] in again.stdout


def test_rows_without_a_rejected_answer_are_told(tmp_path: Path) -> None:
    invoke("import", "-", "--out", tmp_path / "d", stdin=lines(10))
    result = invoke("export", tmp_path / "d", "--form", "preference", "--split", "all")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "10 rows have no rejected answer" in result.stderr


def test_a_dataset_is_selected_and_made_again(tmp_path: Path) -> None:
    keep(FileStore(str(tmp_path / "collected")), [said(n) for n in range(80)])
    policy = tmp_path / "policy.yaml"
    policy.write_text("dataset: {label_field: category, min_rows: 10}\n")
    common = ["select", "triage", "--from", str(tmp_path / "collected")]
    first = invoke(*common, "--out", tmp_path / "d", "--policy", policy, "--until-ms", str(NOW_MS))
    assert first.exit_code == 0, first.output
    assert "log-1/penstock.responses/0" in first.stdout
    again = invoke(*common, "--out", tmp_path / "e", "--again", tmp_path / "d")
    digests = [json.loads((tmp_path / d / "dataset.json").read_text())["digest"] for d in "de"]
    assert (again.exit_code, digests[0] == digests[1]) == (0, True)
    preferences = invoke("export", tmp_path / "d", "--form", "preference", "--split", "all")
    assert len(preferences.stdout.splitlines()) == 80


@pytest.mark.parametrize(
    ("arguments", "stdin", "message"),
    [
        (["show", "/nowhere"], None, "it has no dataset.json"),
        (["import", "-", "--out", "d"], "{}\n", "line 1: messages: it is missing"),
        (["import", "-", "--out", "d"], "", "there is no line"),
        (["import", "/nowhere.jsonl", "--out", "d"], None, "cannot be read"),
        (["select", "m", "--from", "nope://x", "--out", "d"], None, "nope"),
        (["select", "m", "--from", "/nowhere", "--out", "d"], None, "0 rows to train on"),
    ],
)
def test_a_mistake_is_one_line_for_people(
    arguments: list[str],
    stdin: str | None,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    result = invoke(*arguments, stdin=stdin)
    assert (result.exit_code, message in result.stderr) == (1, True), result.output
    assert not (tmp_path / "d" / "dataset.json").exists()


def test_the_group_loads_without_what_takes_long() -> None:
    code = (
        "import sys, penstock_retrain.dataset.commands\n"
        "print([m for m in ('pyarrow', 'scipy', 'datasketch', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
