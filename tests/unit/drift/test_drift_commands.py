"""`penstock drift`, as far as it goes without a stack."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from penstock.cli.app import app
from penstock.cli.run import UNREACHABLE
from penstock_drift.policy.document import default_document
from penstock_drift.signals.catalogue import CATALOGUE

NOWHERE = {"PENSTOCK_KAFKA_BOOTSTRAP": "127.0.0.1:1", "PENSTOCK_DRIFT_GRPC_PORT": "1"}


def invoke(*arguments: str, stdin: str | None = None):  # type: ignore[no-untyped-def]
    return CliRunner().invoke(app, ["drift", *arguments], input=stdin, env=NOWHERE)


@pytest.mark.parametrize(
    "command",
    [["policy", "show"], ["policy", "check"], ["policy", "set"], ["signals"], ["report"]],
)
def test_help_shows_an_example(command: list[str]) -> None:
    result = invoke(*command, "--help")
    assert result.exit_code == 0
    assert f"penstock drift {' '.join(command)}" in result.stdout


def test_the_default_policy_is_shown_and_is_a_policy() -> None:
    shown = invoke("policy", "show", "--default")
    assert shown.stdout == default_document()
    assert invoke("policy", "check", "-", stdin=shown.stdout).exit_code == 0
    parsed = json.loads(invoke("policy", "show", "--default", "--json").stdout)
    assert parsed["policy"]["alpha"] == 0.0001


def test_every_error_of_a_policy_is_told(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text("alpha: 2\ntick_ss: 1\n")
    for command in ("check", "set"):
        result = invoke("policy", command, str(file))
        assert result.exit_code == 1
        assert "alpha: Input should be less than 1" in result.stderr
        assert "did you mean tick_s?" in result.stderr


def test_the_catalogue_needs_no_stack() -> None:
    lines = invoke("signals", "--catalogue", "--json").stdout.splitlines()
    assert [json.loads(line)["name"] for line in lines] == list(CATALOGUE)
    assert "refusal" in invoke("signals", "--catalogue").stdout


@pytest.mark.parametrize(
    "command", [["policy", "show"], ["signals"], ["report", "x"], ["policy", "set", "-"]]
)
def test_without_a_stack_they_say_so(command: list[str]) -> None:
    result = invoke(*command, stdin="")
    assert result.exit_code == UNREACHABLE
    assert "make up" in result.stderr
