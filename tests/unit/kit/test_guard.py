"""Each error has one way out: again, to the dlq, or up."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest

from penstock.errors import InvalidRequest, Unavailable
from penstock.kafka.guard import ATTEMPTS, DeadLetters, Guard, Handle
from penstock.kafka.limits import Breach, Broken, DeadLetterLimit
from penstock.kafka.ports import LogError
from penstock.records import Outgoing, Partition, Record

RECORDS = [Record(Partition("p.in", 3), n, b"key", b"%d" % n, (("h", b"v"),), 5) for n in range(6)]


class World:
    def __init__(self) -> None:
        self.letters: list[Outgoing] = []
        self.slept: list[float] = []
        self.held: list[tuple[Partition, Breach]] = []

    async def publish(self, records: Sequence[Outgoing]) -> None:
        self.letters.extend(records)

    async def sleep(self, wait_s: float) -> None:
        self.slept.append(wait_s)

    async def hold(self, partition: Partition, breach: Breach) -> None:
        self.held.append((partition, breach))

    def guard(self, handle: Handle, **limits: Any) -> Guard:
        return Guard(
            handle,
            DeadLetters(self, "p.dlq", "test", "g", self),
            sleep=self.sleep,
            clock=lambda: 0.0,
            limit=partial(DeadLetterLimit, **limits),
        )


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
    assert headers["kafka_dlt-original-offset"] == b"\x00" * 7 + b"\x04"
    assert headers["kafka_dlt-original-consumer-group"] == b"g"
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
    assert all(b / 2 <= w < b for b, w in zip((0.2, 0.4, 0.8), world.slept, strict=True))
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


async def test_at_the_limit_the_consumer_is_held_before_the_next_record() -> None:
    world = World()
    at_hold: list[int] = []

    async def handle(records: Sequence[Record]) -> None:
        at_hold.append(len(world.held))
        raise ValueError("a bad deploy")

    await world.guard(handle, max_run=2).handle(RECORDS)
    # Once as a batch, then one by one: two letters, a hold, two letters, a hold, ...
    assert at_hold == [0, 0, 0, 1, 1, 2, 2]
    assert [breach.run for _, breach in world.held] == [2, 2, 2]
    assert {partition for partition, _ in world.held} == {Partition("p.in", 3)}
    assert len(world.letters) == 6


async def test_a_bad_share_holds_though_no_two_follow_each_other() -> None:
    world = World()

    async def handle(records: Sequence[Record]) -> None:
        if any(record.offset % 2 for record in records):
            raise ValueError("every other one")

    await world.guard(handle, max_share=0.4, min_count=6, window_records=6).handle(RECORDS)
    (held,) = world.held
    assert held[1].broken is Broken.SHARE
    assert (held[1].dead, held[1].handled) == (3, 6)


async def test_partitions_are_counted_apart() -> None:
    world = World()

    async def handle(records: Sequence[Record]) -> None:
        raise ValueError("bad")

    batch = [Record(Partition("p.in", n), 0, None, b"", (), 5) for n in range(6)]
    await world.guard(handle, max_run=2).handle(batch)
    assert world.held == []
    assert len(world.letters) == 6
