"""Tells the story on a running stack."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import yaml
from rich.console import Console

from examples.triage.story.account import Account, account, claims
from examples.triage.story.chronicle import PROMOTED, Chronicle
from examples.triage.story.plot import Plot
from examples.triage.story.recorded import recording
from examples.triage.story.traffic import MODEL, HelpDesk
from examples.triage.story.view import View
from penstock.cli.demo_tally import Claim
from penstock.cli.log import reading_each
from penstock.cli.settings import CliSettings
from penstock.cli.spend import window
from penstock.rpc.channel import open_channel
from penstock.v1.cost_service_pb2_grpc import CostStub
from penstock_native.stack import Stack

__all__ = ["environment", "tell"]

LOOK_S = 0.5
KILL_LOOK_S = 0.05
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
    policy = home / "retrain.yaml"
    policy.write_text(yaml.safe_dump(plot.policy), encoding="utf-8")
    return {
        **(_played_back(plot, plot.adapter, home) if plot.adapter else {}),
        "PENSTOCK_INFERENCE_ADAPTERS_DIR": str(adapters),
        "PENSTOCK_INFERENCE_MAX_LORA_RANK": "8",
        "PENSTOCK_INFERENCE_MAX_LORAS": "1",
        "PENSTOCK_INFERENCE_MAX_RUNNING": "32",
        "PENSTOCK_RETRAIN_SIGNING_KEY": str(key),
        "PENSTOCK_RETRAIN_POLICY": str(policy),
        # What nobody needs of a candidate is gone before the story is over.
        "PENSTOCK_RETRAIN_CLEAN_AFTER_S": "5",
    }


def _played_back(plot: Plot, adapter: Path, home: Path) -> dict[str, str]:
    answers = home / "answers.jsonl"
    answers.write_text("".join(recording(plot)), encoding="utf-8")
    return {
        "PENSTOCK_INFERENCE_ENGINE": "scripted",
        "PENSTOCK_INFERENCE_ENGINE_CPUS": "0.1",
        "PENSTOCK_INFERENCE_SCRIPTED_TOKENS": "48",
        "PENSTOCK_INFERENCE_SCRIPTED_RECORDING": str(answers),
        "PENSTOCK_RETRAIN_IMPORTS_DIR": str(adapter.resolve().parent),
    }


async def tell(plot: Plot, stack: Stack, console: Console) -> tuple[Account, list[Claim]]:
    """The story from the first ticket to the last.

    Args:
        plot: How it goes.
        stack: Where; it runs.
        console: Where it is shown.
    """
    await asyncio.to_thread(stack.penstock, "drift", "policy", "set", str(plot.drift_policy))
    env = stack.env
    settings = CliSettings(
        kafka_bootstrap=env["PENSTOCK_KAFKA_BOOTSTRAP"],
        topic_prefix=env["PENSTOCK_TOPIC_PREFIX"],
        ingest_grpc_port=int(env["PENSTOCK_INGEST_GRPC_PORT"]),
        cost_grpc_port=int(env["PENSTOCK_COST_GRPC_PORT"]),
    )
    chronicle = Chronicle()
    begun_s, changed_s, kill = time.time(), None, plot.kill
    takers = {
        "alerts": chronicle.take_alert,
        "jobs": chronicle.take_job,
        "routes": chronicle.take_route,
    }
    async with reading_each(settings, takers), HelpDesk(settings, plot) as desk:
        with View(console, desk, chronicle) as view:
            while not _over(plot, chronicle, begun_s):
                desk.check()
                if plot.changes and changed_s is None and time.time() - begun_s >= plot.quiet_s:
                    desk.changed, changed_s = True, time.time()
                    chronicle.note(changed_s, "the rule for priorities changes")
                if kill and kill in chronicle.states:
                    await asyncio.to_thread(stack.kill, "retrain")
                    chronicle.note(time.time(), "the service retrain is killed")
                    kill = ""
                view.show()
                # Some stages are over in a second.
                await asyncio.sleep(KILL_LOOK_S if kill else LOOK_S)
            ended_s = time.time()
            await desk.close(ANSWERS_S)
            view.show()
        async with open_channel(settings.cost_address) as channel:
            spent = await CostStub(channel).GetSpend(window(None, None), timeout=LEDGER_S)
    said = await asyncio.to_thread(stack.penstock, "rollout", "history", MODEL, "--json")
    found = account(
        desk.asked.values(),
        chronicle,
        begun_s=begun_s,
        changed_s=changed_s,
        ended_s=ended_s,
        judged=desk.opinions,
        usd=spent.total_usd,
        unbilled_usd=spent.unbilled_usd,
        versions=len(json.loads(said).get("versions", ())),
        adapters=_adapters(Path(env["PENSTOCK_INFERENCE_ADAPTERS_DIR"])),
    )
    return found, claims(plot, found, chronicle)


def _adapters(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir() if each.is_dir())


def _over(plot: Plot, chronicle: Chronicle, begun_s: float) -> bool:
    now_s = time.time()
    if now_s - begun_s >= plot.limit_s:
        return True
    if not chronicle.end:
        return False
    if chronicle.end == PROMOTED and chronicle.resolved_s is None:
        return False
    return now_s - chronicle.states[chronicle.end] >= plot.after_s
