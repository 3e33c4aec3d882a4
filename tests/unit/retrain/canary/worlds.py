"""A log in memory with clients on it, and a job that has come to its shadow."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence

from penstock.codec import encode
from penstock.kafka.ports import LogError
from penstock.records import Outgoing, Partition, Record
from penstock.v1 import common_pb2, feedback_pb2, response_pb2, route_pb2
from penstock_retrain.canary.observing import CanaryLog, Offsets
from penstock_retrain.jobs.desk import SqlDesk
from penstock_retrain.jobs.route_view import RouteView
from tests.unit.retrain.jobs.places import Place

OLD, NEW = "triage-base", "triage-v1"
PARTITIONS = 2


class MemoryLog:
    """Topics as lists; see `penstock_retrain.canary.observing.Windows`.

    Args:
        limit: Records that a read gives at most.
        faults: How often a call fails.
    """

    def __init__(self, limit: int = 10_000, faults: float = 0.0) -> None:
        self.faults = faults
        self.draw = random.Random(1)
        self.records: dict[str, list[list[Record]]] = {}
        self.limit = limit
        self.name = "memory.1"
        self.now_ms = 1_000_000

    def where(self) -> CanaryLog:
        async def id_of(topics: Sequence[str]) -> str:
            return self.name

        return CanaryLog(lambda: self, id_of, lambda name: name, clock_ms=lambda: self.now_ms)

    def write(self, outgoing: Outgoing) -> None:
        topic = self._topic(outgoing.topic)
        number = sum(outgoing.key or b"") % PARTITIONS
        place = Partition(outgoing.topic, number)
        record = Record(
            place,
            len(topic[number]),
            outgoing.key,
            outgoing.value,
            outgoing.headers,
            self.now_ms,
        )
        topic[number].append(record)

    def _may_fail(self) -> None:
        if self.draw.random() < self.faults:
            raise LogError("the log is away")

    async def ends(self, topic: str) -> dict[int, int]:
        self._may_fail()
        return {n: len(records) for n, records in enumerate(self._topic(topic))}

    async def at(self, topic: str, instant_ms: int) -> dict[int, int]:
        return {
            n: sum(record.timestamp_ms < instant_ms for record in records)
            for n, records in enumerate(self._topic(topic))
        }

    async def read(
        self, topic: str, start: Offsets, end: Offsets, limit: int
    ) -> tuple[list[Record], dict[int, int]]:
        self._may_fail()
        found: list[Record] = []
        after = dict(start)
        for number, records in enumerate(self._topic(topic)):
            left = max(0, min(limit, self.limit) - len(found))
            stop = min(end.get(number, 0), start.get(number, 0) + left)
            found += records[start.get(number, 0) : stop]
            after[number] = max(stop, start.get(number, 0))
        return found, after

    async def close(self) -> None:
        pass

    def _topic(self, name: str) -> list[list[Record]]:
        return self.records.setdefault(name, [[] for _ in range(PARTITIONS)])


@dataclasses.dataclass
class World:
    """Jobs on SQL, a route that is published at once, and clients.

    Attributes:
        place: Jobs, registry and outbox.
        log: What clients and feedback write.
        view: What is published.
        accuracy: Of each variant.
        draw: Of everything that is drawn.
    """

    place: Place
    log: MemoryLog
    view: RouteView
    accuracy: dict[str, float]
    draw: random.Random
    number: int = 0

    def desk(self) -> SqlDesk:
        return SqlDesk(
            self.place.store, self.place.outbox, self.view, self.publish, self.place.tick
        )

    def publish(self) -> None:
        """What waits in the outbox is on the log."""
        route = self.place.outbox.head("triage")
        assert route is not None
        (record,) = [encode(route, topic="routes", key="triage", source="test")]
        self.view.on_record(
            Record(Partition("routes", 0), 0, record.key, record.value, record.headers, 0)
        )

    def route(self) -> route_pb2.Route:
        found = self.view.held("triage")
        assert found is not None
        return found

    def clients(self, count: int, *, feedback: float = 1.0, step_ms: int = 10) -> None:
        """Requests by the route that stands, their shadow copies, and what is said of them."""
        for _ in range(count):
            self.number += 1
            self.log.now_ms += step_ms
            request_id, route = f"r{self.number}", self.route()
            serving = [v for v in route.variants if v.stage != route_pb2.STAGE_SHADOW]
            (chosen,) = self.draw.choices(serving, [v.weight for v in serving])
            self._answer("responses", request_id, chosen.name, route.version)
            for variant in route.variants:
                copied = self.draw.random() * 100 < variant.weight
                if variant.stage == route_pb2.STAGE_SHADOW and copied:
                    self._answer("shadows", request_id, variant.name, route.version)
            if self.draw.random() < feedback:
                said = feedback_pb2.Feedback(request_id=request_id, label="right")
                self.log.write(encode(said, topic="feedback", key=request_id, source="test"))

    def _answer(self, topic: str, request_id: str, variant: str, version: int) -> None:
        right = self.draw.random() < self.accuracy[variant]
        made = response_pb2.GenerateResponse(
            request_id=request_id,
            outcome=response_pb2.OUTCOME_ANSWERED,
            text="right" if right else "wrong",
            model="triage",
            variant=variant,
            route_version=version,
            timings=response_pb2.Timings(total_s=self.draw.uniform(0.01, 0.1)),
        )
        if topic == "shadows":
            made.request_id = f"{request_id}~{variant}"
            made.origin_request_id = request_id
            made.purpose = common_pb2.PURPOSE_SHADOW
        self.log.write(encode(made, topic=topic, key=request_id, source="test"))


def world(url: str, accuracy: float, *, seed: int = 6, limit: int = 10_000) -> World:
    """Of a candidate with an accuracy; the champion's is 0.9."""
    place = Place(url)
    place.routed()
    made = World(
        place,
        MemoryLog(limit),
        RouteView(),
        {OLD: 0.9, NEW: accuracy},
        random.Random(seed),
    )
    made.publish()
    return made
