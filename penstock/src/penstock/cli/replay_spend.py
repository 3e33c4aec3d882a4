"""What a run of replays cost, as far as the ledger tells."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import time
from decimal import Decimal

import grpc

from penstock.cli.replay_plan import Tally
from penstock.cli.settings import CliSettings
from penstock.cli.spend import window
from penstock.pricing import add, plain
from penstock.rpc.channel import open_channel
from penstock.rpc.errors import error_of
from penstock.v1 import usage_pb2
from penstock.v1.cost_service_pb2_grpc import CostStub

__all__ = ["Cost", "spend_of"]

LEDGER_S = 15.0  # the ledger follows the log a moment behind
ASK_EVERY_S = 0.5
CALL_S = 5.0
SLACK = dt.timedelta(seconds=1)


@dataclasses.dataclass(frozen=True)
class Cost:
    """What the ledger says of a run.

    Attributes:
        usd: The sum; None where it cannot be told.
        note: What the sum holds, or why there is none.
    """

    usd: str | None
    note: str


async def spend_of(settings: CliSettings, tally: Tally) -> Cost:
    """The ledger's sum of replays for the tenants of a run, since its first response.

    The ledger does not know runs: replays of other runs, for the same tenants at the same time,
    are in the sum, and the note says so.
    """
    tenants, since, lines = tally.charged()
    if since is None:
        return Cost(None, "nothing was charged")
    deadline_s = time.monotonic() + LEDGER_S
    try:
        async with open_channel(settings.cost_address) as channel:
            while True:
                usd, booked = await _ask(channel, tenants, since - SLACK)
                if booked >= lines or time.monotonic() > deadline_s:
                    break
                await asyncio.sleep(ASK_EVERY_S)
    except grpc.aio.AioRpcError as error:
        if error.code() == grpc.StatusCode.FAILED_PRECONDITION:
            return Cost(None, error_of(error).message)
        return Cost(None, f"the ledger did not answer ({error.code().name})")
    if booked < lines:
        return Cost(plain(usd), f"so far: {booked} of {lines} lines are booked")
    other = f", with {booked - lines} replays of other runs" if booked > lines else ""
    return Cost(plain(usd), f"{lines} line{'s' * (lines != 1)}{other}")


async def _ask(
    channel: grpc.aio.Channel, tenants: frozenset[str], since: dt.datetime
) -> tuple[Decimal, int]:
    stub = CostStub(channel)
    amounts, lines = [Decimal(0)], 0
    for tenant in sorted(tenants):
        answer = await stub.GetSpend(window(tenant, None, since), timeout=CALL_S)
        for kind in answer.kinds:
            if kind.kind == usage_pb2.USAGE_KIND_REPLAY:
                amounts.append(Decimal(kind.amount_usd or "0"))
                lines += kind.lines
    return add(*amounts), lines
