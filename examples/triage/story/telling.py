"""Tells the story on a running stack; or several at once, each of a model of its own."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from rich.console import Console

from examples.triage.story.account import Account, account, claims
from examples.triage.story.chronicle import PROMOTED, Chronicle
from examples.triage.story.faults import due, strike
from examples.triage.story.plot import Plot
from examples.triage.story.traffic import HelpDesk
from examples.triage.story.view import View
from penstock.cli.demo_tally import Claim
from penstock.cli.log import reading_each
from penstock.cli.settings import CliSettings
from penstock.cli.spend import window
from penstock.rpc.channel import open_channel
from penstock.v1.cost_service_pb2_grpc import CostStub
from penstock_native.stack import Stack

__all__ = ["Told", "tell"]

LOOK_S = 0.5
KILL_LOOK_S = 0.05
ANSWERS_S = 60.0
LEDGER_S = 20.0


@dataclasses.dataclass(frozen=True)
class Told:
    """A story that is over.

    Attributes:
        plot: How it had to go.
        account: How it went.
        claims: What has to hold of it.
    """

    plot: Plot
    account: Account
    claims: Sequence[Claim]


async def tell(plots: Sequence[Plot], stack: Stack, console: Console) -> list[Told]:
    """The stories from the first ticket to the last.

    Args:
        plots: How they go; the first one's kill is the only one that is heeded.
        stack: Where; it runs, with `surroundings` of these plots.
        console: Where they are shown.
    """
    await asyncio.to_thread(stack.penstock, "drift", "policy", "set", str(plots[0].drift_policy))
    env = stack.env
    settings = CliSettings(
        kafka_bootstrap=env["PENSTOCK_KAFKA_BOOTSTRAP"],
        topic_prefix=env["PENSTOCK_TOPIC_PREFIX"],
        ingest_grpc_port=int(env["PENSTOCK_INGEST_GRPC_PORT"]),
        cost_grpc_port=int(env["PENSTOCK_COST_GRPC_PORT"]),
    )
    async with contextlib.AsyncExitStack() as open_:
        stories = [await open_.enter_async_context(_begun(settings, plot)) for plot in plots]
        shown = {each.plot.model: (each.desk, each.chronicle) for each in stories}
        with View(console, shown) as view:
            kill = plots[0].kill
            while not all(each.over for each in stories):
                for each in stories:
                    each.go_on()
                if kill and due(kill, stories[0].chronicle):
                    stories[0].chronicle.note(time.time(), await strike(kill, stack))
                    kill = ""
                view.show()
                # Some stages are over in a second.
                await asyncio.sleep(KILL_LOOK_S if kill else LOOK_S)
            await asyncio.gather(*(each.desk.close(ANSWERS_S) for each in stories))
            view.show()
    return [await _told(each, stories, stack, settings) for each in stories]


class _Story:
    """One that goes on."""

    def __init__(self, plot: Plot, desk: HelpDesk, chronicle: Chronicle) -> None:
        self.plot, self.desk, self.chronicle = plot, desk, chronicle
        self.begun_s = time.time()
        self.changed_s: float | None = None
        self.ended_s = 0.0

    @property
    def over(self) -> bool:
        """Whether its last ticket was sent."""
        return self.ended_s > 0

    def go_on(self) -> None:
        """Does what is due by now: the rule changes, the traffic ends."""
        self.desk.check()
        now_s = time.time()
        if self.over:
            return
        due = now_s - self.begun_s >= self.plot.quiet_s
        if self.plot.changes and self.changed_s is None and due:
            self.desk.changed, self.changed_s = True, now_s
            self.chronicle.note(now_s, "the rule for priorities changes")
        if self._ends(now_s):
            self.ended_s = now_s
            self.desk.stop()

    def _ends(self, now_s: float) -> bool:
        chronicle = self.chronicle
        if now_s - self.begun_s >= self.plot.limit_s:
            return True
        if not chronicle.end:
            return False
        if chronicle.end == PROMOTED and chronicle.resolved_s is None:
            return False
        return now_s - chronicle.states[chronicle.end] >= self.plot.after_s


@contextlib.asynccontextmanager
async def _begun(settings: CliSettings, plot: Plot) -> AsyncIterator[_Story]:
    chronicle = Chronicle(plot.model)
    takers = {
        "alerts": chronicle.take_alert,
        "jobs": chronicle.take_job,
        "routes": chronicle.take_route,
    }
    async with reading_each(settings, takers), HelpDesk(settings, plot) as desk:
        yield _Story(plot, desk, chronicle)


async def _told(
    story: _Story, stories: Sequence[_Story], stack: Stack, settings: CliSettings
) -> Told:
    plot, desk, chronicle = story.plot, story.desk, story.chronicle
    async with open_channel(settings.cost_address) as channel:
        asked = window(None, plot.model)
        spent = await CostStub(channel).GetSpend(asked, timeout=LEDGER_S)
    said = await asyncio.to_thread(stack.penstock, "rollout", "history", plot.model, "--json")
    others = [each.plot.model for each in stories if each is not story]
    found = account(
        desk.asked.values(),
        chronicle,
        begun_s=story.begun_s,
        changed_s=story.changed_s,
        ended_s=story.ended_s,
        judged=desk.opinions,
        usd=spent.total_usd,
        unbilled_usd=spent.unbilled_usd,
        versions=len(json.loads(said).get("versions", ())),
        adapters=_adapters(Path(stack.env["PENSTOCK_INFERENCE_ADAPTERS_DIR"]), others),
        champion=plot.champion,
    )
    return Told(plot, found, claims(plot, found, chronicle))


def _adapters(folder: Path, others: Sequence[str]) -> list[str]:
    """What is there, but for the other stories' versions."""
    theirs = tuple(f"{model}-v" for model in others)
    there = (each.name for each in folder.iterdir() if each.is_dir())
    return sorted(name for name in there if not name.lstrip(".").startswith(theirs))
