"""`penstock drift calibrate` from a file."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from penstock_drift.cli import app
from penstock_drift.policy.document import parse_policy

run = CliRunner()
ARGUMENTS = ["calibrate", "--signal", "refusal", "--target-arl", "1000"]


@pytest.fixture
def quiet(tmp_path: Path) -> str:
    draw = random.Random(1)
    lines = [json.dumps(draw.random() < 0.1) for _ in range(4000)]
    path = tmp_path / "quiet.txt"
    path.write_text("\n".join(lines))
    return str(path)


def test_prints_what_the_policy_takes(quiet: str) -> None:
    found = run.invoke(app, [*ARGUMENTS, "--from-file", quiet, "--detectors", "stepd,page_hinkley"])
    assert found.exit_code == 0, found.output
    rules = yaml.safe_load(found.stdout)
    policy = parse_policy(yaml.safe_dump({"signals": rules}))
    chosen = policy.for_signal("refusal")
    assert chosen.detectors == ("stepd", "page_hinkley")
    assert set(chosen.thresholds) == {"stepd", "page_hinkley"}


def test_json_tells_the_measured_arl(quiet: str) -> None:
    found = run.invoke(
        app, [*ARGUMENTS, "--from-file", quiet, "--detectors", "page_hinkley", "--json"]
    )
    (line,) = found.stdout.splitlines()
    told = json.loads(line)
    assert told["detector"] == "page_hinkley"
    assert told["arl_low"] <= told["arl"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--signal", "refusal"], "either --from-file or --from-topic"),
        (["--signal", "nothing", "--from-file", "FILE"], "no signal 'nothing'"),
        (
            ["--signal", "refusal", "--from-file", "FILE", "--detectors", "magic"],
            "no detector magic",
        ),
        (["--signal", "refusal", "--from-file", "/nowhere"], "cannot be read"),
    ],
)
def test_says_what_to_do_instead(quiet: str, arguments: list[str], message: str) -> None:
    given = [quiet if each == "FILE" else each for each in arguments]
    found = run.invoke(app, ["calibrate", *given])
    assert found.exit_code == 1
    assert message in found.stderr.replace("\n", " ")


def test_a_line_ends_at_a_line_feed_only(tmp_path: Path) -> None:
    path = tmp_path / "few.txt"
    path.write_text('{"value": 0, "note": "a\u2028b\x85c"}\n\n1\n', encoding="utf-8")
    found = run.invoke(app, [*ARGUMENTS, "--from-file", str(path)])
    assert "2500 values" in found.stderr


def test_too_few_values_say_how_many_are_needed(tmp_path: Path) -> None:
    path = tmp_path / "few.txt"
    path.write_text("0\n1\n")
    found = run.invoke(app, [*ARGUMENTS, "--from-file", str(path)])
    assert found.exit_code == 1
    assert "2500 values" in found.stderr
