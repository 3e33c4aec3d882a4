"""Floors, refusals and restarts on the running stack: by command, for a while, across restarts."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from penstock_native.stack import Stack
from tests.integration.test_scaling import Log, live_engines, metric, until

pytestmark = pytest.mark.integration

SETTINGS = {
    "PENSTOCK_INFERENCE_ENGINE": "scripted",
    "PENSTOCK_INFERENCE_SCRIPTED_FIRST_TOKEN_S": "0.1",
    "PENSTOCK_INFERENCE_SCRIPTED_SLOTS": "4",
    "PENSTOCK_INFERENCE_ENGINE_CPUS": "0.1",
    "PENSTOCK_INFERENCE_ENGINE_REPLICAS": "1",
    "PENSTOCK_INFERENCE_ENGINE_REPLICAS_MAX": "2",
    # So that only measures change how many there are.
    "PENSTOCK_INFERENCE_SCALE_UP_AFTER_S": "600",
    "PENSTOCK_INFERENCE_SCALE_DOWN_AFTER_S": "2",
    "PENSTOCK_INFERENCE_DRAIN_S": "3",
    "PENSTOCK_INGEST_PROBE_INTERVAL_S": "5",
}


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with Stack.ephemeral(services=("kafka", "ingest", "inference"), env=SETTINGS) as running:
        yield running


async def command(stack: Stack, *arguments: str) -> str:
    return await asyncio.to_thread(stack.penstock, "models", *arguments)


async def in_force(stack: Stack) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (await command(stack, "measures", "--json")).splitlines()]


def ask(stack: Stack, priority: int) -> tuple[int, str | None]:
    """The status of a call, and when to come back."""
    call = urllib.request.Request(
        f"http://127.0.0.1:{stack.env['PENSTOCK_INGEST_HTTP_PORT']}/v1/chat/completions",
        json.dumps(
            {
                "model": "triage",
                "messages": [{"role": "user", "content": f"of priority {priority}"}],
                "priority": priority,
            }
        ).encode(),
        {"content-type": "application/json"},
    )
    try:
        with urllib.request.urlopen(call, timeout=60) as answer:
            return answer.status, None
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["retry-after"]
    except OSError:
        return 0, None


async def test_what_is_shed_is_told_so_across_a_restart_until_it_is_ended(stack: Stack) -> None:
    await until(lambda: ask(stack, 5)[0] == 200, stack)
    said = await command(stack, "shed", "triage", "--priority-above", "0", "--for", "30m")
    assert "requests for triage with a priority value above 0 are refused, until" in said
    await until(lambda: ask(stack, 5) == (429, "60"), stack)
    assert ask(stack, 0)[0] == 200
    await asyncio.to_thread(stack.stop, "ingest")
    await asyncio.to_thread(stack.start, "ingest")
    await until(lambda: ask(stack, 0)[0] == 200, stack)
    assert ask(stack, 5) == (429, "60")
    (measure,) = await in_force(stack)
    assert (measure["kind"], measure["priority_above"], measure["share"]) == ("shed", 0, 1.0)
    await command(stack, "end", measure["measure_id"])
    await until(lambda: ask(stack, 5)[0] == 200, stack)
    assert await in_force(stack) == []


async def test_a_floor_brings_engines_and_one_starts_anew_without_losing_a_request(
    stack: Stack,
) -> None:
    await until(lambda: live_engines(stack) == 1, stack)
    await command(stack, "scale", "triage", "--replicas", "5", "--for", "30m")
    await until(lambda: live_engines(stack) == 2, stack)  # its maximum
    (floor,) = await in_force(stack)
    async with Log(stack) as log:

        async def trickle() -> None:
            while True:
                await log.send(2)
                await asyncio.sleep(0.2)

        trickling = asyncio.create_task(trickle())
        gone = len(left(stack))
        await command(stack, "restart", "triage", "--for", "30m")
        await until(lambda: live_engines(stack) == 1, stack)
        await until(lambda: live_engines(stack) == 2, stack)
        restart = next(each for each in await in_force(stack) if each["kind"] == "restart")
        # The command still stands: nobody else goes by it.
        await asyncio.sleep(3)
        assert left(stack)[gone:] == [restart["replica"]]
        trickling.cancel()
        await asyncio.gather(trickling, return_exceptions=True)
        await until(log.all_ended, stack)
        await asyncio.sleep(1)  # for what would come twice
        log.check()
    assert left(stack)[gone:] == [restart["replica"]]
    assert metric(stack, "penstock_pump_work_restarted_total") == 0
    await command(stack, "end", floor["measure_id"])
    await until(lambda: live_engines(stack) == 1, stack)


def left(stack: Stack) -> list[str]:
    """The engine replicas that the pump has seen go, by name."""
    # Ray puts who says it before a line.
    return [
        json.loads(line[line.index("{") : line.rindex("}") + 1])["replica"]
        for line in stack.log("inference").splitlines()
        if "engine left" in line and "{" in line
    ]
