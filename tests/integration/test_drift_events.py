"""Refusals rise in one task: an event, an alert and the same again by replay, from the service."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from penstock.v1 import drift_pb2
from penstock_native.ports import free_port
from tests.integration.drift_stream import (
    BEGAN_MS,
    Script,
    assert_each_once,
    assert_same,
    events_of,
    sequential,
    set_policy,
    write_responses,
)
from tests.integration.drift_worker import Progress, worker
from tests.integration.operator_place import make_place

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]
RESPONSES = 4000
SCRIPT = Script(changes={0: RESPONSES // 2})


async def test_a_shift_gives_events_and_one_alert(kafka: Any, tmp_path: Path) -> None:
    place = await make_place(kafka.bootstrap)
    await set_policy(place)
    end_ms = await write_responses(place, SCRIPT, RESPONSES)
    port = free_port()
    log = tmp_path / "drift.log"
    async with worker(place, log, PENSTOCK_DRIFT_METRICS_PORT=str(port)) as process:
        async with Progress.of(place) as progress:
            await progress.until(lambda: progress.settled(end_ms))
        with await asyncio.to_thread(
            urllib.request.urlopen, f"http://127.0.0.1:{port}/metrics"
        ) as answer:
            metrics = str(answer.read(), "utf-8")
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 60) == 0, log.read_text()

    events = await events_of(place)
    found = {
        (event.segment, event.signal)
        for event in events
        if event.state == drift_pb2.DRIFT_STATE_DRIFT
    }
    assert found == {("", "refusal"), ("task=t0", "refusal")}
    assert len({event.incident_id for event in events}) == 1
    first = events[0]
    # The change began at 40 s, half way through the stream.
    assert 38 <= first.onset.seconds - BEGAN_MS // 1000 <= 44
    assert first.kind == drift_pb2.DRIFT_KIND_OUTPUT
    assert first.mean_before == pytest.approx(0.02, abs=0.02)
    alerts = [json.loads(record.value or b"") for record in await place.read("alerts")]
    assert alerts[0]["state"] == "ALERT_STATE_OPENED"
    assert {alert["incident_id"] for alert in alerts} == {first.incident_id}
    assert (Path(__file__).parents[2] / alerts[0]["runbook"]).is_file()
    for shown in (
        'penstock_drift_events_total{kind="output",state="drift"}',
        "penstock_drift_folded_total",
        'penstock_drift_passed_over_total{reason="late"} 0.0',
    ):
        assert shown in metrics

    undisturbed = await sequential(place, SCRIPT.partitions)
    assert_same(events, undisturbed.events)
    assert_each_once(undisturbed, RESPONSES)
    told = await place.done("drift", "replay", "--from", "2026-01-01", "--compare", "--json")
    assert len(told.splitlines()) == len(events)
