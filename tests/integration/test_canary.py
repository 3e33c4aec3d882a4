"""Shadow and canary of the service on real Kafka: verdicts, and deaths in the middle."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from penstock.v1 import route_pb2
from penstock_native.kafka import KafkaServer
from penstock_retrain.canary.matching import MAX_OPEN
from tests.integration.canary_traffic import CHAMPION, Traffic
from tests.integration.retrain_service import PATIENCE_S, Retrain, retrain_with_route, shares

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

CANDIDATE = "triage-v1"
POLICY = """
shadow: {percent: 50, answers: 10, pairs: 30}
canary:
  primary: {metric: accuracy, effect: 0.2, margin: 0.2}
  minimum: 30
  settle_s: 0
  steps: %s
"""
TWO_STEPS = "[{percent: 20, values: 20}, {percent: 50, values: 40}]"
ONE_LONG_STEP = "[{percent: 50, values: 1500}]"


@pytest.fixture
async def retrain(kafka: KafkaServer, tmp_path: Path) -> AsyncIterator[Retrain]:
    async with retrain_with_route(kafka.bootstrap, tmp_path) as made:
        yield made


@contextlib.asynccontextmanager
async def started(retrain: Retrain, accuracy: float, steps: str) -> AsyncIterator[Traffic]:
    """A job whose stages before the shadow are small, and traffic from before it on."""
    policy = retrain.home / "policy.yaml"
    policy.write_text(POLICY % steps)
    async with Traffic(retrain, accuracy) as traffic:
        await traffic.batch(200)
        await retrain.start(stages="own")
        await retrain.said("jobs", "start", "triage", "--policy", str(policy))
        traffic.flow()
        yield traffic


def in_state(*names: str) -> Callable[[dict[str, Any]], bool]:
    states = [f"JOB_STATE_{name}" for name in names]
    return lambda job: job["state"] in states


def found(job: dict[str, Any], stage: str) -> dict[str, Any]:
    return dict(json.loads(job["results"][stage]))


async def test_a_candidate_as_good_is_shadowed_steps_up_and_is_promoted(retrain: Retrain) -> None:
    async with started(retrain, 0.97, TWO_STEPS):
        job = await retrain.until(in_state("PROMOTED", "ROLLED_BACK", "INCONCLUSIVE", "FAILED"))
    assert job["state"] == "JOB_STATE_PROMOTED", job
    shadow, canary = found(job, "shadow"), found(job, "canary")
    assert shadow["standing"]["accuracy"]["pairs"] >= 30
    # What it would tell was there before it began.
    assert shadow["prospects"]["champion_mean"] == pytest.approx(0.9, abs=0.07)
    assert shadow["prospects"]["steps"][-1]["promotes_an_equal_one"] > 0.9
    assert canary["verdict"]["decision"] == "promote"
    # Evidence was carried: pairs of the shadow are in the canary's.
    assert canary["standing"]["accuracy"]["pairs"] == shadow["standing"]["accuracy"]["pairs"]
    routes = await retrain.routes()
    assert [shares(route).get(CANDIDATE) for route in routes] == [
        None,
        (route_pb2.STAGE_SHADOW, 50),
        (route_pb2.STAGE_CANDIDATE, 2000),
        (route_pb2.STAGE_CANDIDATE, 5000),
        (route_pb2.STAGE_CHAMPION, 10_000),
    ]


async def test_a_worse_candidate_is_rolled_back(retrain: Retrain) -> None:
    async with started(retrain, 0.5, TWO_STEPS):
        job = await retrain.until(in_state("PROMOTED", "ROLLED_BACK", "INCONCLUSIVE", "FAILED"))
    assert job["state"] == "JOB_STATE_ROLLED_BACK", job
    assert "accuracy: worse by more than 0" in job["reason"]
    async with asyncio.timeout(PATIENCE_S):
        while CANDIDATE in shares((await retrain.routes())[-1]):
            await asyncio.sleep(0.2)
    # The weights are as they were, in proportion: all traffic is the champion's.
    (champion,) = shares((await retrain.routes())[-1])
    assert champion == CHAMPION


async def test_killed_in_the_middle_each_observation_counts_once(retrain: Retrain) -> None:
    """Three deaths while answers come; then the counts are what was written, and it goes on."""

    def values(job: dict[str, Any]) -> int:
        if job["state"] != "JOB_STATE_CANARY" or "canary" not in job["results"]:
            return 0
        standing = found(job, "canary").get("standing", {})
        return int(standing.get("accuracy", {}).get("candidate", 0))

    async with started(retrain, 0.97, ONE_LONG_STEP) as traffic:
        for wanted in (60, 110, 160):
            await retrain.until(lambda job, wanted=wanted: values(job) >= wanted)  # type: ignore[misc]
            retrain.processes[-1].kill()
            await retrain.processes[-1].wait()
            # What is written in the moments after a death is there as well.
            await traffic.pause()
            await retrain.start(stages="own")
            if wanted < 160:
                traffic.flow()
        version = max(version for version, variant in traffic.written if variant == CANDIDATE)
        written = {
            "champion": traffic.written[version, CHAMPION],
            "candidate": traffic.written[version, CANDIDATE],
        }
        assert written["candidate"] < 1500  # else the verdict may be there already
        job = await retrain.until(
            lambda job: found(job, "canary").get("split", {}).get("feedback") == written
        )
        assert found(job, "canary")["split"]["requests"] == written
        # Some wait for their partner, and those of the arm that is far ahead found no place at all;
        # nothing else is missing, nothing is twice.
        shadow_pairs = found(job, "shadow")["standing"]["accuracy"]["pairs"]
        settled = values(job) - shadow_pairs
        unplaced = MAX_OPEN + found(job, "canary")["dropped"].get("metric:accuracy", 0)
        assert written["candidate"] - unplaced <= settled <= written["candidate"]
        traffic.flow()
        ended = await retrain.until(in_state("PROMOTED", "ROLLED_BACK", "INCONCLUSIVE", "FAILED"))
    assert ended["state"] == "JOB_STATE_PROMOTED", ended
    assert retrain.adapters() == [CANDIDATE]
