"""The running service finds the changes that it makes up, and its doors tell of them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from penstock_drift.policy.document import SELF_TEST_MODEL
from penstock_native.ports import free_port
from penstock_native.scrape import samples
from tests.integration.drift_stream import events_of
from tests.integration.drift_worker import worker
from tests.integration.operator_place import make_place

pytestmark = pytest.mark.integration

POLICY = """
tick_s: 1
lateness_s: 1
cooldown_ticks: 2
signals: {"*": {baseline_observations: 500}}
self_test: {rate_per_s: 100, quiet_observations: 500}
"""


def counts(port: int) -> dict[tuple[str, str], int]:
    try:
        shown = samples(port)
    except OSError:
        return {}
    return {
        (each.labels["outcome"], each.labels["signal"]): int(each.value)
        for each in shown
        if each.name == "penstock_drift_self_test_changes_total"
    }


async def test_made_up_changes_are_found_and_are_no_incident(kafka: Any, tmp_path: Path) -> None:
    place = await make_place(kafka.bootstrap)
    file = tmp_path / "policy.yaml"
    file.write_text(POLICY)
    await place.done("drift", "policy", "set", str(file))
    metrics, grpc = free_port(), free_port()
    log = tmp_path / "drift.log"
    ports = {"PENSTOCK_DRIFT_METRICS_PORT": str(metrics), "PENSTOCK_DRIFT_GRPC_PORT": str(grpc)}
    async with worker(place, log, PENSTOCK_DRIFT_SAVE_S="1", **ports) as process:
        async with asyncio.timeout(150):
            while not {("found", "refusal"), ("found", "latency")} <= counts(metrics).keys():
                assert process.returncode is None, log.read_text()
                await asyncio.sleep(0.5)
        listed = await place.done("drift", "signals", "--json", env={**ports})
        found = counts(metrics)
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 60) == 0, log.read_text()
    assert {outcome for outcome, _ in found} == {"found"}, found
    events = await events_of(place)
    assert {event.model for event in events} == {SELF_TEST_MODEL}
    (run,) = {event.variant for event in events}
    # A run of the default policy may lie beside it, from before the worker had read this one.
    statuses = [s for s in map(json.loads, listed.splitlines()) if s["variant"] == run]
    assert {s["signal"] for s in statuses} == {"refusal", "latency"}
    assert all(int(s["baseline_observations"]) >= 500 for s in statuses), statuses
    assert await place.read("alerts") == []
