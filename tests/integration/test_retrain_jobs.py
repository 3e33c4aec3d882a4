"""Jobs on real Kafka: killed at every stage, asked for by drift, rolled back past a sleeper."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from penstock.codec import decode, encode
from penstock.v1 import alert_pb2, drift_pb2, job_pb2, route_pb2
from penstock_native.kafka import KafkaServer
from tests.integration.retrain_service import PATIENCE_S, Retrain, retrain_with_route, shares

pytestmark = pytest.mark.integration


@pytest.fixture
async def retrain(kafka: KafkaServer, tmp_path: Path) -> AsyncIterator[Retrain]:
    async with retrain_with_route(kafka.bootstrap, tmp_path) as made:
        yield made


@pytest.mark.parametrize(
    "kill",
    [
        "dataset:during",
        "training:during",
        "training:after",
        "evaluating:during",
        "registering:before",
        "registering:after",
        "shadow:during",
        "canary:step1",
        "canary:step2",
        "canary:after",
    ],
)
async def test_a_job_that_is_killed_ends_as_it_would_have(retrain: Retrain, kill: str) -> None:
    first = await retrain.start(kill=kill)
    await retrain.said("jobs", "list")
    # The process may be gone before it could answer: the job is there all the same.
    await retrain.say("jobs", "start", "triage")
    async with asyncio.timeout(PATIENCE_S):
        assert await first.wait() == -signal.SIGKILL
    await retrain.start()
    job = await retrain.until(lambda found: found["state"] == "JOB_STATE_PROMOTED")
    assert [int(found["model_version"]) for found in await retrain.jobs()] == [1]
    assert retrain.adapters() == ["triage-v1"]
    history = json.loads(await retrain.said("rollout", "history", "triage", "--json"))
    assert history["aliases"] == {"champion": "1"}
    assert [version["job_id"] for version in history["versions"]] == [job["job_id"]]
    async with asyncio.timeout(PATIENCE_S):
        while len(routes := await retrain.routes()) < 5:
            await asyncio.sleep(0.1)
    # Shadow, two steps, the promotion: each once, in order.
    assert [route.version for route in routes] == [1, 2, 3, 4, 5]
    assert shares(routes[-1]) == {
        "triage-base": (route_pb2.STAGE_CANDIDATE, 0),
        "triage-v1": (route_pb2.STAGE_CHAMPION, 10_000),
    }
    lineage = json.loads(await retrain.said("lineage", "triage@champion", "--json"))
    assert json.loads(lineage["dataset"])["sources"] == {"responses/0": [0, 2]}
    assert [route["outcome"] for route in lineage["routes"]] == ["published"] * 4
    # Everything that happened is told, in its order.
    updates = [decode(record, job_pb2.JobUpdate) for record in await retrain.read("jobs")]
    told = [u.revision for u in updates if u.HasField("transition")]
    assert list(dict.fromkeys(told)) == list(range(1, int(job["revision"]) + 1))


async def test_lineage_answers_however_a_candidate_ended(retrain: Retrain) -> None:
    """Promoted, rolled back, rejected at a gate: back to the offsets, by version and by job."""
    await retrain.start()
    for verdict, state in {"": "PROMOTED", "worse": "ROLLED_BACK", "reject": "REJECTED"}.items():
        if verdict:
            (retrain.home / verdict).touch()
        await retrain.said("jobs", "start", "triage")
        job = await retrain.until(lambda job, state=state: job["state"] == f"JOB_STATE_{state}")  # type: ignore[misc]
        if verdict:
            (retrain.home / verdict).unlink()
        found = json.loads(await retrain.said("lineage", f"triage@{job['job_id']}", "--json"))
        assert json.loads(found["dataset"])["sources"] == {"responses/0": [0, 2]}
        assert found["job"]["state"] == f"JOB_STATE_{state}"
        by_version = f"triage@{job['model_version']}"
        same = json.loads(await retrain.said("lineage", by_version, "--json"))
        assert (same["job"]["job_id"], same["dataset"]) == (job["job_id"], found["dataset"])
    # What was not promoted is retired, and its weights go.
    async with asyncio.timeout(PATIENCE_S):
        while retrain.adapters() != ["triage-v1"]:
            await asyncio.sleep(0.2)


def finding(event_id: str, **fields: Any) -> drift_pb2.DriftEvent:
    said: dict[str, Any] = {
        "event_id": event_id,
        "model": "triage",
        "variant": "triage-base",
        "signal": "accuracy",
        "kind": drift_pb2.DRIFT_KIND_QUALITY,
        "state": drift_pb2.DRIFT_STATE_DRIFT,
        "action": "retrain",
        "incident_id": f"drift/{event_id}",
    }
    made = drift_pb2.DriftEvent(**(said | fields))
    made.detected_at.GetCurrentTime()
    return made


async def test_only_quality_evidence_opens_a_job_and_only_once(retrain: Retrain) -> None:
    (retrain.home / "hold").touch()
    await retrain.start()
    events = [
        finding("e1", kind=drift_pb2.DRIFT_KIND_INPUT),
        finding("e2", kind=drift_pb2.DRIFT_KIND_OPERATIONAL),
        finding("e3", kind=drift_pb2.DRIFT_KIND_OUTPUT),
        finding("e4", action="rollback_route"),
        finding("e5", state=drift_pb2.DRIFT_STATE_SUSPECT),
        finding("e6"),
        finding("e6"),
        finding("e7"),  # the model has an active job by now
    ]
    topic = retrain.topic("drift")
    await retrain.publish(
        *(encode(e, topic=topic, key="triage/triage-base", source="drift") for e in events)
    )
    job = await retrain.until(lambda found: found["state"] == "JOB_STATE_CANARY")
    assert (job["cause"]["event_id"], job["cause"]["incident_id"]) == ("e6", "drift/e6")
    (retrain.home / "hold").unlink()
    await retrain.until(lambda found: found["state"] == "JOB_STATE_PROMOTED")
    # The cool-down of the default policy keeps the next finding from starting another.
    await retrain.publish(
        encode(finding("e8"), topic=topic, key="triage/triage-base", source="drift")
    )
    async with asyncio.timeout(PATIENCE_S):
        while retrain.log.read_text().count("no job is opened") < 2:
            await asyncio.sleep(0.2)
    assert len(await retrain.jobs()) == 1


@pytest.mark.parametrize("sleep", ["before", "within"])
async def test_a_service_that_slept_cannot_take_a_rollback_back(
    retrain: Retrain, sleep: str
) -> None:
    """It is stopped (SIGSTOP) before, or within, the transaction of a step's route."""
    (retrain.home / "hold").touch()
    sleeper = await retrain.start(sleep=sleep)
    await retrain.said("jobs", "start", "triage")
    async with asyncio.timeout(PATIENCE_S):
        while not (retrain.home / "stopped").exists():
            await asyncio.sleep(0.1)
    await retrain.start()
    await retrain.said("rollout", "rollback", "triage", "--reason", "complaints")
    async with asyncio.timeout(PATIENCE_S):
        while len(routes := await retrain.routes()) < 5:
            await asyncio.sleep(0.1)
    # Its step is published by the one that is awake, then the rollback.
    assert [route.version for route in routes] == [1, 2, 3, 4, 5]
    assert shares(routes[-1]) == {"triage-base": (route_pb2.STAGE_CHAMPION, 5000)}
    sleeper.send_signal(signal.SIGCONT)
    async with asyncio.timeout(PATIENCE_S):
        # Kafka's refusal has two names, by where in the transaction it slept.
        while not any(
            said in retrain.log.read_text() for said in ("another process", "a route waits")
        ):
            await asyncio.sleep(0.2)
        # It is as alive as the other one, and ends in order.
        sleeper.terminate()
        assert await sleeper.wait() == 0
    assert [route.version for route in await retrain.routes()] == [1, 2, 3, 4, 5]
    job = await retrain.until(lambda found: found["state"] == "JOB_STATE_ROLLED_BACK")
    assert job["reason"] == "complaints"
    async with asyncio.timeout(PATIENCE_S):
        while retrain.adapters():  # no orphan
            await asyncio.sleep(0.2)


async def test_people_are_asked_and_told_when_it_is_over(retrain: Retrain) -> None:
    policy = retrain.home / "policy.yaml"
    policy.write_text("approve_before: [promotion]\n")
    await retrain.start()
    await retrain.said("jobs", "start", "triage", "--policy", str(policy))
    job = await retrain.until(lambda found: found["state"] == "JOB_STATE_AWAITING_APPROVAL")
    shown = await retrain.said("jobs", "show", job["job_id"])
    assert "awaiting_approval of promoted" in shown
    assert f"penstock jobs approve {job['job_id']}" in shown
    listed = await retrain.done("alerts", "list")
    assert "retraining of triage: awaiting approval" in listed
    await retrain.said("jobs", "approve", job["job_id"])
    watched = await retrain.said("jobs", "watch", job["job_id"])
    assert "awaiting_approval -> promoted" in watched
    async with asyncio.timeout(PATIENCE_S):
        while True:
            alerts = [decode(record, alert_pb2.Alert) for record in await retrain.read("alerts")]
            if len(alerts) == 2:
                break
            await asyncio.sleep(0.2)
    assert [alert.state for alert in alerts] == [
        alert_pb2.ALERT_STATE_OPENED,
        alert_pb2.ALERT_STATE_RESOLVED,
    ]
    assert alerts[0].opened_at == alerts[1].opened_at
