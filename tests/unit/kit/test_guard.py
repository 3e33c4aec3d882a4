"""Each error has one way out: again, to the dlq, or up."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from penstock.errors import InvalidRequest, Unavailable
from penstock.kafka.guard import ATTEMPTS, DeadLetters, Guard, Handle
from penstock.kafka.ports import LogError
from penstock.records import Outgoing, Partition, Record

RECORDS = [Record(Partition("p.in", 3), n, b"key", b"%d" % n, (("h", b"v"),), 5) for n in range(6)]


class World:
    def __init__(self) -> None:
        self.letters: list[Outgoing] = []
        self.slept: list[float] = []

    async def publish(self, records: Sequence[Outgoing]) -> None:
        self.letters.extend(records)

    async def sleep(self, wait_s: float) -> None:
        self.slept.append(wait_s)

    def guard(self, handle: Handle) -> Guard:
        return Guard(handle, DeadLetters(self, "p.dlq", "test"), sleep=self.sleep)


@pytest.mark.parametrize("error", [ValueError("secret"), InvalidRequest("secret", field="value")])
async def test_the_record_at_fault_goes_to_the_dlq_alone(error: Exception) -> None:
    world, handled = World(), set()

    async def handle(records: Sequence[Record]) -> None:
        if any(record.offset == 4 for record in records):
            raise error
        handled.update(record.offset for record in records)

    await world.guard(handle).handle(RECORDS)
    assert handled == {0, 1, 2, 3, 5}
    (letter,) = world.letters
    headers = dict(letter.headers)
    assert (letter.topic, letter.key, letter.value) == ("p.dlq", b"key", b"4")
    assert headers["h"] == b"v"
    assert headers["kafka_dlt-original-topic"] == b"p.in"
    assert headers["kafka_dlt-original-partition"] == b"3"
    assert headers["kafka_dlt-original-offset"] == b"4"
    assert headers["kafka_dlt-original-timestamp"] == b"5"
    assert headers["penstock-service"] == b"test"
    assert not any(b"secret" in value for value in headers.values())


async def test_what_is_unavailable_is_tried_again() -> None:
    world, calls = World(), 0

    async def handle(records: Sequence[Record]) -> None:
        nonlocal calls
        calls += 1
        if calls < 4:
            raise Unavailable("the database is away")

    await world.guard(handle).handle(RECORDS)
    assert world.slept == [0.2, 0.4, 0.8]
    assert world.letters == []


async def test_what_stays_unavailable_stops_the_consumer_and_fills_no_dlq() -> None:
    world = World()

    async def handle(records: Sequence[Record]) -> None:
        raise Unavailable("the database is away")

    with pytest.raises(Unavailable):
        await world.guard(handle).handle(RECORDS)
    assert len(world.slept) == ATTEMPTS - 1
    assert world.letters == []


async def test_a_log_that_cannot_be_written_stops_the_consumer() -> None:
    world = World()

    async def handle(records: Sequence[Record]) -> None:
        raise LogError("no broker")

    with pytest.raises(LogError):
        await world.guard(handle).handle(RECORDS)
    assert (world.slept, world.letters) == ([], [])
