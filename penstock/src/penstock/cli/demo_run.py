"""The demonstration's dealings with Kafka and the ledger."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from types import TracebackType
from typing import Self

import grpc

from penstock.cli.demo_tally import Numbers, Tally, Ticket
from penstock.cli.log import publisher, reading, require_topic
from penstock.cli.run import CliError
from penstock.cli.settings import CliSettings
from penstock.cli.spend import window
from penstock.codec import Encoding, decode, encode
from penstock.errors import InvalidRequest
from penstock.kafka.reader import Start
from penstock.records import Outgoing, Record
from penstock.rpc.channel import open_channel
from penstock.v1 import admitted_pb2, cost_service_pb2, request_pb2, response_pb2
from penstock.v1.cost_service_pb2_grpc import CostStub

__all__ = ["Demonstration", "Show"]

BATCH = 64
SHOW_EVERY_S = 0.25
ASK_LEDGER_EVERY_S = 0.5
LEDGER_S = 60.0
CALL_S = 5.0
# Record times are the producers' clocks; begin a little before our own.
SLACK = dt.timedelta(seconds=10)

Show = Callable[[Numbers, str | None], None]
Spend = cost_service_pb2.GetSpendResponse


class Demonstration:
    """One run against a running stack, under a tenant of its own.

    Use it as a context manager: it reads `admitted` and `responses` while it is open.

    Args:
        settings: Where the stack is.
        tickets: What to send.
    """

    def __init__(self, settings: CliSettings, tickets: Sequence[Ticket]) -> None:
        self.run_id = uuid.uuid4().hex[:12]
        self.tenant = f"demo-{self.run_id}"
        self._settings = settings
        self._tickets = tickets
        self._begun = dt.datetime.now(dt.UTC) - SLACK
        self._live = Tally(tickets, self.run_id, self.tenant)
        self._spend: Spend | None = None
        self._open = contextlib.AsyncExitStack()
        self._ledger: grpc.aio.Channel | None = None

    async def __aenter__(self) -> Self:
        """Starts to read.

        Raises:
            LogError: Kafka cannot be reached.
            CliError: A topic is not there.
        """
        await require_topic(self._settings, "requests")
        try:
            await self._open.enter_async_context(self._counting(self._live, Start.END))
            channel = open_channel(self._settings.cost_address)
            self._ledger = await self._open.enter_async_context(channel)
        except BaseException:
            await self._open.aclose()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._open.aclose()

    async def await_first_answer(self, timeout_s: float) -> None:
        """Sends one ticket under another tenant and waits for its response.

        An engine that still loads its model would otherwise pass for a slow one.

        Raises:
            LogError: Kafka did not take it.
            CliError: There was none within `timeout_s`.
        """
        probe = self._tickets[0].request(f"{self.run_id}-first", f"{self.tenant}-first")
        ended = asyncio.Event()

        def on_response(record: Record) -> None:
            with contextlib.suppress(InvalidRequest):
                if decode(record, response_pb2.GenerateResponse).tenant == probe.tenant:
                    ended.set()

        responses = self._settings.topic("responses")
        async with (
            reading(self._settings, responses, Start.END, on_response),
            publisher(self._settings) as to,
        ):
            await to.publish([self._record(probe)])
            try:
                await asyncio.wait_for(ended.wait(), timeout_s)
            except TimeoutError:
                raise CliError(
                    f"no response to a first request within {timeout_s:g} s: is inference up? "
                    "See `make status` and `make logs`"
                ) from None

    async def send_and_await(self, rate: float | None, timeout_s: float, show: Show) -> None:
        """Publishes every ticket and waits until each has come to its end, or for `timeout_s`.

        Raises:
            LogError: Kafka did not take a ticket.
        """
        asking = asyncio.create_task(self._follow_spend())
        sending = asyncio.create_task(self._send(rate))
        deadline_s = time.monotonic() + timeout_s
        try:
            while not self._live.complete and time.monotonic() < deadline_s:
                if sending.done():
                    sending.result()
                show(self.numbers(), self._spend.total_usd if self._spend else None)
                await asyncio.sleep(SHOW_EVERY_S)
        finally:
            for task in (asking, sending):
                task.cancel()
            await asyncio.gather(asking, sending, return_exceptions=True)

    def numbers(self) -> Numbers:
        """The figures of this moment."""
        return self._live.numbers(time.monotonic())

    async def settled_spend(self) -> Spend | None:
        """The ledger's sums once it has a line per answer, or what it has after a minute.

        None where it did not answer at all.
        """
        deadline_s = time.monotonic() + LEDGER_S
        while True:
            self._spend = await self._ask_ledger() or self._spend
            settled = self._spend is not None and self._spend.lines >= self._live.answered
            if settled or time.monotonic() >= deadline_s:
                return self._spend
            await asyncio.sleep(ASK_LEDGER_EVERY_S)

    async def recount(self) -> Tally:
        """What stands on the log now, read anew from the run's start to the end, committed only.

        Raises:
            CliError: It could not be read within a minute.
        """
        tally = Tally(self._tickets, self.run_id, self.tenant)
        async with self._counting(tally, Start.at(self._begun)):
            return tally

    @contextlib.asynccontextmanager
    async def _counting(self, tally: Tally, start: Start) -> AsyncIterator[None]:
        def on_admitted(record: Record) -> None:
            # What cannot be read is not of this run: its tickets would then be missed.
            with contextlib.suppress(InvalidRequest):
                tally.admit(decode(record, admitted_pb2.AdmittedRequest))

        def on_response(record: Record) -> None:
            with contextlib.suppress(InvalidRequest):
                tally.respond(decode(record, response_pb2.GenerateResponse), time.monotonic())

        topic = self._settings.topic
        async with (
            reading(self._settings, topic("admitted"), start, on_admitted),
            reading(self._settings, topic("responses"), start, on_response),
        ):
            yield

    async def _send(self, rate: float | None) -> None:
        """Writes the tickets as JSON, in batches or one by one at a rate."""
        step = BATCH if rate is None else 1
        begun_s = time.monotonic()
        async with publisher(self._settings) as to:
            for at in range(0, len(self._tickets), step):
                if rate is not None:
                    await asyncio.sleep(max(0.0, begun_s + at / rate - time.monotonic()))
                batch = self._tickets[at : at + step]
                for ticket in batch:
                    self._live.publish(ticket.key(self.run_id), time.monotonic())
                requests = [ticket.request(self.run_id, self.tenant) for ticket in batch]
                await to.publish([self._record(request) for request in requests])

    def _record(self, request: request_pb2.GenerateRequest) -> Outgoing:
        return encode(
            request,
            topic=self._settings.topic("requests"),
            key=request.idempotency_key,
            source="demo",
            encoding=Encoding.ENCODING_JSON,
        )

    async def _follow_spend(self) -> None:
        while True:
            self._spend = await self._ask_ledger() or self._spend
            await asyncio.sleep(2 * ASK_LEDGER_EVERY_S)

    async def _ask_ledger(self) -> Spend | None:
        """The sums of the run's tenant; None while the ledger does not answer."""
        assert self._ledger is not None, "the demonstration is used as a context manager"
        try:
            return await CostStub(self._ledger).GetSpend(
                window(self.tenant, model=None), timeout=CALL_S
            )
        except grpc.aio.AioRpcError:
            return None
