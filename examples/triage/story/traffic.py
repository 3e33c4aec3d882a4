"""The help desk: tickets at a steady rate, and what is right for some of the answers."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
import uuid
from types import TracebackType
from typing import Self

from examples.triage.desk import answer_of, give_label, ticket_record
from examples.triage.story.plot import Plot, Question
from penstock.cli.log import publisher, reading
from penstock.cli.settings import CliSettings
from penstock.codec import decode
from penstock.kafka.publisher import KafkaPublisher
from penstock.kafka.reader import Start
from penstock.records import Outgoing, Record
from penstock.rpc.channel import open_channel
from penstock.v1 import response_pb2
from penstock.v1.inference_service_pb2_grpc import InferenceStub

__all__ = ["Asked", "HelpDesk"]

STEP_S = 0.05  # tickets of so long are published together
OPINIONS = 16  # calls at a time that send feedback


@dataclasses.dataclass(slots=True)
class Asked:
    """A ticket that was sent, and what came of it.

    Attributes:
        question: What was sent.
        sent_s: When, seconds since 1970; likewise `answered_s`.
        answers: How many responses there are: one, if all is well.
        right: Whether the answer is the right one.
        variant: Who answered.
    """

    question: Question
    sent_s: float
    answered_s: float | None = None
    answers: int = 0
    right: bool = False
    variant: str = ""


class HelpDesk:
    """Traffic on a running stack, from entering to `close`.

    Args:
        settings: Where the stack is.
        plot: How many tickets, and which.

    Attributes:
        changed: Whether the rule has changed for what is sent from now on.
        asked: What was sent, in order, by idempotency key.
        opinions: How many answers were judged.
    """

    def __init__(self, settings: CliSettings, plot: Plot) -> None:
        self.tenant = f"desk-{uuid.uuid4().hex[:8]}"
        self.changed = False
        self.asked: dict[str, Asked] = {}
        self.opinions = 0
        self._settings = settings
        self._plot = plot
        self._open = contextlib.AsyncExitStack()
        self._to_judge: asyncio.Queue[tuple[Question, str]] = asyncio.Queue()
        self._tasks: list[asyncio.Task[None]] = []
        self._answered = asyncio.Event()

    async def __aenter__(self) -> Self:
        settings, open_ = self._settings, self._open
        topic = settings.topic("responses")
        await open_.enter_async_context(reading(settings, topic, Start.END, self._take))
        channel = await open_.enter_async_context(open_channel(settings.ingest_address))
        to = await open_.enter_async_context(publisher(settings))
        self._tasks = [asyncio.create_task(self._send(to))]
        self._tasks += [
            asyncio.create_task(self._judge(InferenceStub(channel))) for _ in range(OPINIONS)
        ]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._open.aclose()

    def check(self) -> None:
        """Raises what ended a part of the traffic, if anything did."""
        for task in self._tasks:
            if task.done() and not task.cancelled():
                task.result()

    def stop(self) -> None:
        """Sends nothing more."""
        self._tasks[0].cancel()

    async def close(self, patience_s: float) -> None:
        """Sends nothing more, and waits for the answers that are missing."""
        self.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                while self.missing:
                    self._answered.clear()
                    await self._answered.wait()

    @property
    def missing(self) -> int:
        """How many tickets have no answer yet."""
        return sum(not each.answers for each in self.asked.values())

    async def _send(self, to: KafkaPublisher) -> None:
        begun_s, sent = time.monotonic(), 0
        while True:
            due = int((time.monotonic() - begun_s) * self._plot.rate) + 1
            await to.publish([self._ask(number) for number in range(sent, due)])
            sent = due
            await asyncio.sleep(STEP_S)

    def _ask(self, number: int) -> Outgoing:
        key = f"{self.tenant}-{number}"
        question = self._plot.question(number, changed=self.changed)
        self.asked[key] = Asked(question, time.time())
        return ticket_record(
            question.ticket,
            topic=self._settings.topic("requests"),
            model=self._plot.model,
            tenant=self.tenant,
            key=key,
            source="help-desk",
        )

    def _take(self, record: Record) -> None:
        response = decode(record, response_pb2.GenerateResponse)
        asked = self.asked.get(response.idempotency_key)
        if asked is None:
            return
        asked.answers += 1
        self._answered.set()
        if asked.answers > 1:
            return
        asked.answered_s = response.created_at.ToMilliseconds() / 1000
        asked.variant = response.variant
        answered = response.outcome == response_pb2.OUTCOME_ANSWERED
        asked.right = answered and answer_of(response.text) == asked.question.ticket["expected"]
        if answered and asked.question.judged:
            self._to_judge.put_nowait((asked.question, response.request_id))

    async def _judge(self, stub: InferenceStub) -> None:
        while True:
            question, request_id = await self._to_judge.get()
            await give_label(stub, request_id, self.tenant, question.ticket)
            self.opinions += 1
