"""Clients as a canary sees them: requests split as the route says, answers, and what is said."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Mapping
from typing import Self

from penstock.codec import decode, encode
from penstock.kafka.publisher import KafkaPublisher
from penstock.kafka.reader import LogReader, Start
from penstock.records import Outgoing, Record
from penstock.v1 import common_pb2, feedback_pb2, response_pb2, route_pb2
from tests.integration.operator_place import Place

RIGHT, WRONG = '{"category": "billing"}', '{"category": "bug"}'
CHAMPION = "triage-base"


class Traffic:
    """Writes responses, shadow copies' and feedback for the route that stands.

    Args:
        place: Where.
        accuracy: Of the candidate; the champion's is 0.9.
        seed: Of all draws.
    """

    def __init__(self, place: Place, accuracy: float, seed: int = 6) -> None:
        self._place = place
        self._accuracy = accuracy
        self._draw = random.Random(seed)
        self._route = route_pb2.Route()
        self._number = 0
        # Requests with feedback by the route's version and the variant.
        self.written: Counter[tuple[int, str]] = Counter()
        self.paused = asyncio.Event()
        self._publisher = KafkaPublisher(place.bootstrap, "traffic")
        self._task: asyncio.Task[None] | None = None
        self._reader: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self._start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stop()

    async def _start(self) -> None:
        await self._publisher.start()
        reader = LogReader(
            self._place.bootstrap, self._place.topic("routes"), start=Start.BEGINNING
        )
        self._reader = asyncio.create_task(reader.run(self._routed))
        await asyncio.wait_for(reader.caught_up.wait(), 30)

    async def _stop(self) -> None:
        await self.pause()
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)
        await self._publisher.stop()

    def flow(self) -> None:
        """Requests come from now on, until `pause`."""
        self.paused.clear()
        self._task = asyncio.create_task(self._flow())

    async def pause(self) -> None:
        """Ends the flow between two batches: everything that was begun is written."""
        self.paused.set()
        if self._task is not None:
            await self._task
            self._task = None

    async def batch(self, count: int) -> None:
        answers, copies, opinions = [], [], []
        for _ in range(count):
            self._number += 1
            request_id = f"r{self._number}"
            variant = self._chosen()
            answers.append(self._answer("responses", request_id, variant))
            copies += self._copies(request_id)
            opinions.append(self._opinion(request_id))
            self.written[self._route.version, variant] += 1
        await self._publisher.publish(answers)
        await self._publisher.publish(copies + opinions)

    def shares(self) -> Mapping[str, int]:
        return {variant.name: variant.weight for variant in self._route.variants}

    async def _flow(self) -> None:
        while not self.paused.is_set():
            await self.batch(10)
            await asyncio.sleep(0.1)

    def _routed(self, record: Record) -> None:
        route = decode(record, route_pb2.Route)
        if route.version > self._route.version:
            self._route = route

    def _chosen(self) -> str:
        serving = [v for v in self._route.variants if v.stage != route_pb2.STAGE_SHADOW]
        (found,) = self._draw.choices(serving, [v.weight for v in serving])
        return str(found.name)

    def _copies(self, request_id: str) -> list[Outgoing]:
        return [
            self._answer("shadows", request_id, variant.name)
            for variant in self._route.variants
            if variant.stage == route_pb2.STAGE_SHADOW
            and self._draw.random() * 100 < variant.weight
        ]

    def _answer(self, topic: str, request_id: str, variant: str) -> Outgoing:
        accuracy = 0.9 if variant == CHAMPION else self._accuracy
        shadow = topic == "shadows"
        made = response_pb2.GenerateResponse(
            request_id=f"{request_id}~{variant}" if shadow else request_id,
            outcome=response_pb2.OUTCOME_ANSWERED,
            text=RIGHT if self._draw.random() < accuracy else WRONG,
            model="triage",
            variant=variant,
            route_version=self._route.version,
            tenant="acme",
            timings=response_pb2.Timings(total_s=self._draw.uniform(0.01, 0.1)),
        )
        if shadow:
            made.purpose = common_pb2.PURPOSE_SHADOW
            made.origin_request_id = request_id
        return encode(made, topic=self._place.topic(topic), key=request_id, source="traffic")

    def _opinion(self, request_id: str) -> Outgoing:
        said = feedback_pb2.Feedback(request_id=request_id, tenant="acme", label="billing")
        topic = self._place.topic("feedback")
        return encode(said, topic=topic, key=request_id, source="traffic")
