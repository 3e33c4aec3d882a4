"""The demonstration's claims hold, also when inference is killed in the middle."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from penstock_native.stack import Stack
from tests.e2e.support import ROOT, penstock

pytestmark = pytest.mark.e2e


def test_every_claim_of_the_demonstration_holds(stack: Stack, tmp_path: Path) -> None:
    report = tmp_path / "demo.json"
    penstock(stack.env, "demo", "--limit", "300", "--json-out", str(report))
    claims = json.loads(report.read_text())["claims"]
    assert claims
    assert all(claim["holds"] for claim in claims), claims


@pytest.mark.chaos
def test_a_killed_inference_costs_no_ticket_and_doubles_none(stack: Stack, tmp_path: Path) -> None:
    report = tmp_path / "demo.json"
    command = [str(Path(sys.executable).with_name("penstock")), "demo", "--json-out", str(report)]
    demo = subprocess.Popen(
        command, cwd=ROOT, env=stack.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    time.sleep(4)  # in the middle, wherever that is
    assert demo.poll() is None, "the demonstration was over before the kill"
    stack.kill("inference")
    output, _ = demo.communicate(timeout=280)
    assert demo.returncode == 0, output.decode()
    assert all(claim["holds"] for claim in json.loads(report.read_text())["claims"])
