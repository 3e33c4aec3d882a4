"""A pump between a log in memory and engines that the test plays."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from penstock import codec
from penstock.kafka.consumer import TransactionalConsumer
from penstock.kafka.memory import MemoryBroker
from penstock.records import Outgoing, Record
from penstock.routing import RouteTable
from penstock.v1 import (
    admitted_pb2,
    common_pb2,
    engine_service_pb2,
    response_pb2,
    route_pb2,
    usage_pb2,
)
from penstock_inference.caching.answer_cache import AnswerCache
from penstock_inference.pump.answers import Answers
from penstock_inference.pump.pump import Pump

NOW_S = 1_767_323_045.0
RESULT = engine_service_pb2.WorkResult(
    text="yes",
    finish_reason=response_pb2.FINISH_REASON_STOP,
    usage=common_pb2.Usage(prompt_tokens=3, completion_tokens=1),
)


@dataclasses.dataclass(eq=False)
class FakeWork:
    """Work at an engine that the test plays."""

    item: engine_service_pb2.WorkItem
    owner: object
    tokens: int
    lane: tuple[str, str]
    pool: Engines
    cancelled: bool = False

    def cancel(self) -> None:
        self.cancelled = True

    def forget(self) -> None:
        self.cancelled = True
        self.pool.running.remove(self)


class Engines:
    """The pool's side of the seam; the test says what becomes of each piece of work."""

    def __init__(self, room: int = 100) -> None:
        self.room = room
        self.running: list[FakeWork] = []
        self.begun: list[str] = []
        self.attempts: list[int] = []

    def begin(
        self,
        lane: tuple[str, str],
        item: engine_service_pb2.WorkItem,
        owner: object,
        tokens: int,
    ) -> FakeWork | None:
        if len(self.running) >= self.room:
            return None
        copy = engine_service_pb2.WorkItem()
        copy.CopyFrom(item)
        work = FakeWork(copy, owner, tokens, lane, self)
        self.running.append(work)
        self.begun.append(item.request.request_id)
        self.attempts.append(item.attempt)
        return work


class Bench:
    """A pump between a log in memory and engines that the test plays."""

    def __init__(self, room: int = 100, cache: AnswerCache | None = None) -> None:
        self.now_s = NOW_S
        self.broker = MemoryBroker(partitions=1)
        self.engines = Engines(room)
        self.routes = RouteTable()
        self.chunks: list[Outgoing] = []
        self.pump = Pump(
            self.engines,
            Answers("penstock", "g"),
            self.routes,
            on_chunk=self.chunks.append,
            cache=cache,
            now=lambda: self.now_s,
        )
        self.route({"v1": 1})

    def route(self, weights: dict[str, int], version: int = 7, adapter: str = "") -> None:
        variants = [
            route_pb2.Variant(
                name=name,
                base_model="base",
                adapter=adapter,
                weight=weight,
                stage=route_pb2.STAGE_CANDIDATE if index else route_pb2.STAGE_CHAMPION,
            )
            for index, (name, weight) in enumerate(weights.items())
        ]
        self.routes.apply(route_pb2.Route(model="m", version=version, variants=variants))
        self.pump.routes_changed()

    def publish(self, *messages: admitted_pb2.AdmittedRequest) -> None:
        for message in messages:
            self.broker.append(
                codec.encode(message, topic="penstock.admitted", key="k", source="test")
            )

    async def running(self, count: int) -> list[FakeWork]:
        await until(lambda: len(self.engines.running) == count)
        return list(self.engines.running)

    def answer(self, work: FakeWork, result: engine_service_pb2.WorkResult = RESULT) -> None:
        self.engines.running.remove(work)
        self.pump.on_result(work, result)  # type: ignore[arg-type]

    def lose(self, *works: FakeWork, died: bool = True) -> None:
        for work in works:
            self.engines.running.remove(work)
        self.pump.on_lost(works, died=died)  # type: ignore[arg-type]

    def read(self, topic: str = "responses") -> list[Record]:
        return self.broker.read(f"penstock.{topic}")

    def responses(self, topic: str = "responses") -> list[response_pb2.GenerateResponse]:
        return [codec.decode(r, response_pb2.GenerateResponse) for r in self.read(topic)]

    async def response(self) -> response_pb2.GenerateResponse:
        await until(lambda: len(self.read()) >= 1)
        (found,) = self.responses()
        return found

    async def lines(self) -> list[usage_pb2.UsageLine]:
        return [codec.decode(r, usage_pb2.UsageLine) for r in self.read("usage")]


@asynccontextmanager
async def bench(room: int = 100, cache: AnswerCache | None = None) -> AsyncIterator[Bench]:
    made = Bench(room, cache)
    consumer = TransactionalConsumer(
        made.broker, topic="penstock.admitted", group="g", handler=made.pump
    )
    task = asyncio.create_task(consumer.run())
    try:
        yield made
    finally:
        await consumer.stop(0)
        await task


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


def admitted(request_id: str = "req-1", **changes: object) -> admitted_pb2.AdmittedRequest:
    message = admitted_pb2.AdmittedRequest(
        request_id=request_id, variant="v1", route_version=7, encoding=admitted_pb2.ENCODING_JSON
    )
    message.request.model = "m"
    message.request.tenant = "acme"
    message.request.prompt = "?"
    message.request.sampling.max_tokens = 16
    message.request.idempotency_key = "order 66"
    message.request.labels["team"] = "blue"
    message.published_at.FromSeconds(int(NOW_S) - 2)
    message.admitted_at.FromSeconds(int(NOW_S) - 1)
    message.deadline.FromSeconds(int(NOW_S) + 60)
    for name, value in changes.items():
        if name in ("tenant", "ordering_key", "priority"):
            setattr(message.request, name, value)
        else:
            setattr(message, name, value)
    return message


async def answers_of(b: Bench, count: int) -> Sequence[response_pb2.GenerateResponse]:
    await until(lambda: len(b.read()) == count)
    return b.responses()
