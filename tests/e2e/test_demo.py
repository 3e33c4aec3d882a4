"""The demonstration's claims hold, also when inference is killed in the middle."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from penstock_native.stack import Stack
from tests.e2e.support import ROOT

# The first of a session starts the stack, beside another file's.
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


def test_every_claim_of_the_demonstration_holds(stack: Stack, tmp_path: Path) -> None:
    report = tmp_path / "demo.json"
    stack.penstock("demo", "--limit", "300", "--json-out", str(report))
    claims = json.loads(report.read_text())["claims"]
    assert claims
    assert all(claim["holds"] for claim in claims), claims


@pytest.mark.chaos
def test_a_killed_inference_costs_no_ticket_and_doubles_none(stack: Stack, tmp_path: Path) -> None:
    report = tmp_path / "demo.json"
    # Paced, so that there is a middle to kill in, however quick the machine.
    options = ["--limit", "400", "--rate", "40", "--json-out", str(report)]
    demo = subprocess.Popen(
        [str(Path(sys.executable).with_name("penstock")), "demo", *options],
        cwd=ROOT,
        env=stack.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert demo.stdout is not None
    seen = []
    for line in demo.stdout:
        seen.append(line)
        answered = re.search(r"answered (\d+)", line)
        if answered and 50 < int(answered[1]) < 350:
            break
    stack.kill("inference")
    rest, _ = demo.communicate(timeout=280)
    assert demo.returncode == 0, "".join(seen) + rest
    assert all(claim["holds"] for claim in json.loads(report.read_text())["claims"])
