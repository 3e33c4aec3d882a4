"""Tells the story on a running stack."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from rich.console import Console

from examples.triage.story.account import Account, account, claims
from examples.triage.story.chronicle import PROMOTED, Chronicle
from examples.triage.story.plot import Plot
from examples.triage.story.traffic import HelpDesk
from examples.triage.story.view import View
from penstock.cli.demo_tally import Claim
from penstock.cli.log import reading
from penstock.cli.settings import CliSettings
from penstock.cli.spend import window
from penstock.kafka.reader import Start
from penstock.rpc.channel import open_channel
from penstock.v1.cost_service_pb2_grpc import CostStub

__all__ = ["environment", "tell"]

LOOK_S = 0.5
ANSWERS_S = 60.0
LEDGER_S = 20.0


def environment(plot: Plot, home: Path) -> dict[str, str]:
    """What the stack's services need for the story.

    Args:
        plot: The story.
        home: A directory for adapters and keys.
    """
    adapters = home / "adapters"
    adapters.mkdir(parents=True, exist_ok=True)
    key = home / "keys" / "registry.pem"
    return {
        "PENSTOCK_INFERENCE_ADAPTERS_DIR": str(adapters),
        "PENSTOCK_INFERENCE_MAX_LORA_RANK": "8",
        "PENSTOCK_INFERENCE_MAX_LORAS": "1",
        "PENSTOCK_INFERENCE_MAX_RUNNING": "32",
        "PENSTOCK_RETRAIN_SIGNING_KEY": str(key),
        "PENSTOCK_RETRAIN_POLICY": str(plot.policy),
    }


async def tell(plot: Plot, env: Mapping[str, str], console: Console) -> tuple[Account, list[Claim]]:
    """The story from the first ticket to the last.

    Args:
        plot: How it goes.
        env: Of the stack, which runs.
        console: Where it is shown.
    """
    await asyncio.to_thread(_penstock, env, "drift", "policy", "set", str(plot.drift_policy))
    settings = CliSettings(
        kafka_bootstrap=env["PENSTOCK_KAFKA_BOOTSTRAP"],
        topic_prefix=env["PENSTOCK_TOPIC_PREFIX"],
        ingest_grpc_port=int(env["PENSTOCK_INGEST_GRPC_PORT"]),
        cost_grpc_port=int(env["PENSTOCK_COST_GRPC_PORT"]),
    )
    chronicle = Chronicle()
    begun_s, changed_s = time.time(), None
    async with _listening(settings, chronicle), HelpDesk(settings, plot) as desk:
        with View(console, desk, chronicle) as view:
            while not _over(plot, chronicle, begun_s):
                desk.check()
                if plot.changes and changed_s is None and time.time() - begun_s >= plot.quiet_s:
                    desk.changed, changed_s = True, time.time()
                    chronicle.note(changed_s, "the rule for priorities changes")
                view.show()
                await asyncio.sleep(LOOK_S)
            ended_s = time.time()
            await desk.close(ANSWERS_S)
            view.show()
        async with open_channel(settings.cost_address) as channel:
            spent = await CostStub(channel).GetSpend(window(None, None), timeout=LEDGER_S)
    found = account(
        desk.asked.values(),
        chronicle,
        begun_s=begun_s,
        changed_s=changed_s,
        ended_s=ended_s,
        judged=desk.opinions,
        usd=spent.total_usd,
        unbilled_usd=spent.unbilled_usd,
    )
    return found, claims(plot, found, chronicle)


def _over(plot: Plot, chronicle: Chronicle, begun_s: float) -> bool:
    now_s = time.time()
    if now_s - begun_s >= plot.limit_s:
        return True
    if not chronicle.end:
        return False
    if chronicle.end == PROMOTED and chronicle.resolved_s is None:
        return False
    return now_s - chronicle.states[chronicle.end] >= plot.after_s


@contextlib.asynccontextmanager
async def _listening(settings: CliSettings, chronicle: Chronicle) -> AsyncIterator[None]:
    async with contextlib.AsyncExitStack() as readers:
        for name, take in {
            "alerts": chronicle.take_alert,
            "jobs": chronicle.take_job,
            "routes": chronicle.take_route,
        }.items():
            topic = settings.topic(name)
            await readers.enter_async_context(reading(settings, topic, Start.BEGINNING, take))
        yield


def _penstock(env: Mapping[str, str], *arguments: str) -> None:
    command = [str(Path(sys.executable).with_name("penstock")), *arguments]
    ended = subprocess.run(command, env=dict(env), capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        raise RuntimeError(f"penstock {' '.join(arguments)}: {ended.stdout}{ended.stderr}")
