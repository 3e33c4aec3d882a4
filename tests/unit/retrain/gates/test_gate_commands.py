"""`penstock gates`: what people type, what they read, and what a mistake tells them."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner, Result

from penstock_retrain.cli.gates import app
from penstock_retrain.gates.metrics.catalogue import CATALOGUE
from tests.unit.retrain.gates.gate_places import write_suite


def invoke(*arguments: str | Path) -> Result:
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, [str(a) for a in arguments])


def test_the_list_has_every_metric_and_a_folders_suites(tmp_path: Path) -> None:
    write_suite(tmp_path)
    result = invoke("list", "--suites", tmp_path)
    assert result.exit_code == 0, result.output
    for name in CATALOGUE:
        assert name in result.stdout
    assert "Sums of small numbers." in result.stdout
    (tmp_path / "other.yaml").write_text("suite: x\nruls: []\n")
    result = invoke("list", "--suites", tmp_path)
    assert result.exit_code == 1
    assert "other.yaml:2: ruls: it is not known" in result.stderr
    assert invoke("list", "--suites", tmp_path / "none").exit_code == 1


def test_mistakes_say_what_to_do(tmp_path: Path) -> None:
    suite = write_suite(tmp_path)
    result = invoke("run", "--suite", suite, "--model", tmp_path)
    assert result.exit_code == 1
    assert "is no Hugging Face directory: it has no config.json" in result.stderr
    result = invoke("run", "--suite", suite, "--suite", suite, "--model", tmp_path)
    assert "two have one name" in result.stderr
    assert "--champion" in invoke("run", "--help").stdout
