"""The whole loop on a stack of its own, from drift to a promoted model, with a kill in between."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from examples.triage.adapter import train_adapter
from examples.triage.generate import Corpus, Rule, Split
from tests.e2e.support import ROOT

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1500)]


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that has learnt the changed rule well enough for the gates."""
    made = tmp_path_factory.mktemp("imports") / "new-rule"
    train_adapter(made, Corpus(Split.TRAIN, rule=Rule.CHANGED), tickets=720)
    return made


def test_a_change_is_found_and_answered_though_the_service_dies(
    adapter: Path, tmp_path: Path
) -> None:
    out = tmp_path / "story.json"
    options = ["--rate=100", "--quiet-s=20", "--kill=shadow", f"--json-out={out}"]
    ended = subprocess.run(
        [sys.executable, "-m", "examples.triage.story", f"--adapter={adapter}", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert out.exists(), ended.stderr
    (told,) = json.loads(out.read_text())
    assert [each for each in told["claims"] if not each["holds"]] == [], ended.stderr
    assert told["account"]["end"] == "promoted"
    assert ended.returncode == 0
