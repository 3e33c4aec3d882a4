"""Results and position commit together, whatever fails, joins or is fenced in between."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from penstock import codec
from penstock.kafka import consumer as consumer_module
from penstock.kafka import progress
from penstock.kafka.consumer import Delivery, ReadAhead, TransactionalConsumer
from penstock.kafka.halts import HaltAlerts
from penstock.kafka.limits import DeadLetterLimit
from penstock.kafka.memory import MemoryBroker, MemoryMembership, MemoryOwnership
from penstock.kafka.ports import LogError, Position
from penstock.kafka.progress import Note, Progress
from penstock.records import Outgoing, Partition, Record
from penstock.v1 import usage_pb2

INPUT, OUTPUT = "in", "out"


class Echo:
    """Answers each record with its value; `hold` keeps some waiting, `poison` makes some raise."""

    def __init__(self) -> None:
        self.hold: dict[bytes, asyncio.Event] = {}
        self.started: list[bytes] = []
        self.deliveries: dict[bytes, Delivery] = {}
        self.dropped: list[bytes] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def accept(self, delivery: Delivery) -> None:
        value = delivery.record.value
        assert value is not None
        self.started.append(value)
        self.deliveries[value] = delivery
        delivery.on_drop(lambda: self.dropped.append(value))
        if value.startswith(b"poison"):
            raise RuntimeError("cannot handle it")
        if value in self.hold:
            delivery.begin()
            task = asyncio.create_task(self._answer_later(delivery, self.hold[value]))
            self._tasks.add(task)
        else:
            delivery.complete([Outgoing(OUTPUT, delivery.record.key, value)])

    async def _answer_later(self, delivery: Delivery, gate: asyncio.Event) -> None:
        await gate.wait()
        delivery.complete([Outgoing(OUTPUT, delivery.record.key, delivery.record.value)])

    def failed(self, record: Record, error: Exception) -> Sequence[Outgoing]:
        return [Outgoing(OUTPUT, record.key, b"failed " + (record.value or b""))]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


def answers(broker: MemoryBroker) -> Counter[bytes]:
    return Counter(record.value or b"" for record in broker.read(OUTPUT))


def publish(broker: MemoryBroker, *values: bytes, partition: int = 0) -> None:
    for value in values:
        broker.append(Outgoing(INPUT, value[-1:], value, partition=partition))


@contextlib.asynccontextmanager
async def running(
    broker: MemoryBroker, handler: Echo, **options: Any
) -> AsyncIterator[TransactionalConsumer]:
    consumer = TransactionalConsumer(broker, topic=INPUT, group="g", handler=handler, **options)
    task = asyncio.create_task(consumer.run())
    try:
        yield consumer
    finally:
        await consumer.stop(drain_s=0)
        await task


@pytest.fixture(autouse=True)
def quick_rejoin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumer_module, "REJOIN_S", (0.001, 0.01))


async def test_every_record_is_answered_once() -> None:
    broker, handler = MemoryBroker(), Echo()
    values = [b"%d" % i for i in range(100)]
    for i, value in enumerate(values):
        publish(broker, value, partition=i % 4)
    async with running(broker, handler):
        await until(lambda: len(answers(broker)) == 100)
    assert answers(broker) == Counter(values)


async def test_an_answer_does_not_wait_for_work_before_it() -> None:
    broker, handler = MemoryBroker(), Echo()
    handler.hold[b"slow"] = asyncio.Event()
    publish(broker, b"slow", b"quick")
    async with running(broker, handler):
        await until(lambda: answers(broker) == Counter([b"quick"]))
        assert broker.position("g", Partition(INPUT, 0)).offset == 0
        handler.hold[b"slow"].set()
        await until(lambda: len(answers(broker)) == 2)
    assert broker.position("g", Partition(INPUT, 0)).offset == 2


async def test_a_failed_commit_runs_the_work_again_and_answers_once() -> None:
    broker, handler = MemoryBroker(), Echo()
    async with running(broker, handler) as consumer:
        await until(lambda: len(consumer.assigned) == 4)
        broker.fail_next_commit = LogError("the broker went away")
        publish(broker, b"a", b"b")
        await until(lambda: len(answers(broker)) == 2)
    assert answers(broker) == Counter([b"a", b"b"])
    assert Counter(handler.started)[b"a"] == 2


async def test_a_second_member_takes_over_half_and_nothing_is_answered_twice() -> None:
    broker, first, second = MemoryBroker(), Echo(), Echo()
    for n in range(4):
        publish(broker, b"before %d" % n, partition=n)
    gate = asyncio.Event()
    first.hold = {b"before %d" % n: gate for n in range(4)}
    async with running(broker, first) as one:
        await until(lambda: len(first.started) == 4)
        async with running(broker, second) as two:
            await until(lambda: len(one.assigned) == len(two.assigned) == 2)
            gate.set()
            for n in range(4):
                publish(broker, b"after %d" % n, partition=n)
            await until(lambda: sum(answers(broker).values()) >= 8)
    assert set(answers(broker).values()) == {1}
    assert len(answers(broker)) == 8


async def test_a_handler_that_raises_is_answered_by_its_failure() -> None:
    broker, handler = MemoryBroker(), Echo()
    publish(broker, b"poison", b"fine")
    async with running(broker, handler):
        await until(lambda: len(answers(broker)) == 2)
    assert answers(broker) == Counter([b"failed poison", b"fine"])


async def test_a_full_partition_pauses_and_resumes() -> None:
    broker, handler = MemoryBroker(partitions=1), Echo()
    values = [b"%d" % i for i in range(40)]
    handler.hold = {value: asyncio.Event() for value in values}
    publish(broker, *values[:10])
    async with running(broker, handler, read_ahead=ReadAhead(records=10)):
        await until(lambda: len(handler.started) == 10)
        publish(broker, *values[10:])
        for _ in range(20):
            await asyncio.sleep(0.001)
        assert len(handler.started) == 10
        for event in handler.hold.values():
            event.set()
        await until(lambda: len(answers(broker)) == 40)
    assert set(answers(broker).values()) == {1}


async def test_a_graceful_stop_lets_work_under_way_end() -> None:
    broker, handler = MemoryBroker(), Echo()
    handler.hold[b"a"] = asyncio.Event()
    publish(broker, b"a")
    consumer = TransactionalConsumer(broker, topic=INPUT, group="g", handler=handler)
    task = asyncio.create_task(consumer.run())
    await until(lambda: handler.started == [b"a"])
    stop = asyncio.create_task(consumer.stop(drain_s=5))
    await asyncio.sleep(0)
    handler.hold[b"a"].set()
    await stop
    await task
    assert answers(broker) == Counter([b"a"])


async def test_the_trace_of_a_record_is_carried_to_what_it_writes() -> None:
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    traceparent = f"00-{trace_id}-b7ad6b7169203331-01".encode()

    class Encoding(Echo):
        def accept(self, delivery: Delivery) -> None:
            message = usage_pb2.UsageLine(line_id="a")
            delivery.complete([codec.encode(message, topic=OUTPUT, key=None, source="test")])

    broker = MemoryBroker()
    broker.append(Outgoing(INPUT, b"k", b"a", headers=(("traceparent", traceparent),)))
    async with running(broker, Encoding()):
        await until(lambda: len(broker.read(OUTPUT)) == 1)
    (written,) = broker.read(OUTPUT)
    assert (written.header("traceparent") or "").split("-")[1] == traceparent.split(b"-")[
        1
    ].decode()


def left_by_a_dead_owner(broker: MemoryBroker, state: Progress) -> None:
    group = broker._groups["g", INPUT]
    group.positions[Partition(INPUT, 0)] = Position(0, progress.encode(state))


async def test_a_record_that_owners_die_of_is_given_up_and_its_neighbours_are_not() -> None:
    broker, handler = MemoryBroker(), Echo()
    publish(broker, b"deadly", b"beside it")
    begun = {0: Note(deaths=2, begun=True), 1: Note(deaths=0, begun=True)}
    left_by_a_dead_owner(broker, Progress(notes=begun, clean=False))
    async with running(broker, handler):
        await until(lambda: len(answers(broker)) == 2)
    assert answers(broker) == Counter([b"failed deadly", b"beside it"])
    assert handler.started == [b"beside it"]


async def test_suspects_are_noted_before_they_begin_and_run_one_at_a_time() -> None:
    broker, handler = MemoryBroker(), Echo()
    values = [b"suspect 0", b"suspect 1", b"fine"]
    handler.hold = {value: asyncio.Event() for value in values}
    publish(broker, *values)
    noted = {0: Note(2, begun=False), 1: Note(2, begun=False)}
    left_by_a_dead_owner(broker, Progress(notes=noted, clean=False))
    async with running(broker, handler):
        await until(lambda: len(handler.started) == 2)
        assert set(handler.started) == {b"suspect 0", b"fine"}
        metadata = broker.position("g", Partition(INPUT, 0)).metadata
        assert progress.decode(metadata).notes[0] == Note(2, begun=True)
        handler.hold[b"suspect 0"].set()
        await until(lambda: b"suspect 1" in handler.started)
        for gate in handler.hold.values():
            gate.set()
        await until(lambda: len(answers(broker)) == 3)
    assert answers(broker) == Counter(values)


async def test_what_shares_a_key_with_a_suspect_does_not_overtake_it() -> None:
    broker, handler = MemoryBroker(), Echo()
    publish(broker, b"suspect a", b"later a", b"b")
    left_by_a_dead_owner(broker, Progress(notes={0: Note(1, begun=True)}, clean=False))
    async with running(broker, handler):
        await until(lambda: len(answers(broker)) == 3)
    assert handler.started.index(b"suspect a") < handler.started.index(b"later a")
    assert handler.started[0] == b"b"


async def test_an_ordered_handler_gets_all_at_once_and_in_order_whoever_died() -> None:
    broker, handler = MemoryBroker(), Echo()
    values = [b"%d" % i for i in range(20)]
    handler.hold = {value: asyncio.Event() for value in values}
    publish(broker, *values)
    left = Progress(notes={3: Note(1, begun=True)}, takeovers=9, clean=False)
    left_by_a_dead_owner(broker, left)
    async with running(broker, handler, ordered=True):
        await until(lambda: len(handler.started) == 20)
        assert handler.started == values
        for gate in handler.hold.values():
            gate.set()
        await until(lambda: len(answers(broker)) == 20)
    assert answers(broker) == Counter(values)


async def test_what_is_polled_while_a_partition_changes_hands_is_read_again() -> None:
    broker, handler = MemoryBroker(partitions=1), Echo()
    slow = asyncio.Event()
    real = MemoryOwnership.commit

    async def commit(self: MemoryOwnership, *arguments: Any) -> None:
        await slow.wait()
        await real(self, *arguments)

    async with running(broker, handler) as consumer:
        await until(lambda: len(consumer.assigned) == 1)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(MemoryOwnership, "commit", commit)
            async with running(broker, Echo()):
                publish(broker, *(b"%d" % n for n in range(5)))
                await asyncio.sleep(0.05)
                slow.set()
                await asyncio.sleep(0.05)
        await until(lambda: len(answers(broker)) == 5)
    assert set(answers(broker).values()) == {1}


async def test_what_ended_under_a_dead_owner_is_not_run_again() -> None:
    broker, handler = MemoryBroker(), Echo()
    publish(broker, b"a", b"done", b"c")
    left_by_a_dead_owner(broker, Progress(done=0b010, clean=False))
    async with running(broker, handler):
        await until(lambda: broker.position("g", Partition(INPUT, 0)).offset == 3)
    assert answers(broker) == Counter([b"a", b"c"])


async def test_too_many_dead_letters_halt_the_partition_until_it_is_resumed() -> None:
    broker, handler = MemoryBroker(partitions=1), Echo()
    publish(broker, *(b"poison %d" % n for n in range(8)), b"fine")
    partition = Partition(INPUT, 0)
    options: dict[str, Any] = {
        "make_limit": lambda: DeadLetterLimit(max_run=5),
        "halts": HaltAlerts("test", "g", "alerts"),
    }
    async with running(broker, handler, **options) as consumer:
        await until(lambda: len(broker.read("alerts")) == 1)
        assert sum(answers(broker).values()) == 5
        halted_at_ms = progress.decode(broker.position("g", partition).metadata).halted_at_ms
        assert halted_at_ms
        consumer.resume(None, halted_at_ms - 1)  # an old command is for an earlier halt
        await asyncio.sleep(0.02)
        assert consumer.standing()[0].halted
    async with running(broker, handler, **options) as consumer:  # the next owner stays halted
        await until(lambda: bool(consumer.standing()))
        await asyncio.sleep(0.02)
        assert sum(answers(broker).values()) == 5
        consumer.resume(0, halted_at_ms + 1)
        await until(lambda: len(answers(broker)) == 9)
    assert set(answers(broker).values()) == {1}
    assert len(broker.read("alerts")) == 2


async def test_a_partition_that_comes_straight_back_keeps_its_work() -> None:
    broker, one, two = MemoryBroker(), Echo(), Echo()
    values = [b"held %d" % n for n in range(4)]
    gate = asyncio.Event()
    one.hold = dict.fromkeys(values, gate)
    two.hold = dict.fromkeys(values, gate)
    for n, value in enumerate(values):
        publish(broker, value, partition=n)
    async with running(broker, one) as first:
        await until(lambda: len(one.started) == 4)
        async with running(broker, two) as second:
            await until(lambda: len(first.assigned) == len(second.assigned) == 2)
            await until(lambda: len(two.started) == 2)
            gate.set()
            await until(lambda: len(answers(broker)) == 4)
    assert len(one.started) == 4
    assert Counter(one.dropped) == Counter(two.started)
    assert set(answers(broker).values()) == {1}


async def test_it_says_when_it_waits_for_its_partitions(monkeypatch: pytest.MonkeyPatch) -> None:
    broker, handler = MemoryBroker(partitions=1), Echo()
    let_go = asyncio.Event()
    take = MemoryMembership.take

    async def slow_take(self: MemoryMembership, partition: Partition) -> MemoryOwnership:
        await let_go.wait()
        return await take(self, partition)

    monkeypatch.setattr(MemoryMembership, "take", slow_take)
    consumer = TransactionalConsumer(broker, topic=INPUT, group="g", handler=handler)
    assert consumer.settling().due
    task = asyncio.create_task(consumer.run())
    await asyncio.sleep(0.05)
    waiting = consumer.settling()
    assert waiting.due
    let_go.set()
    await until(lambda: not consumer.settling().due)
    async with running(broker, Echo()) as other:  # who joins takes everything from everybody
        await until(lambda: not (consumer.settling().due or other.settling().due))
        assert consumer.settling().mark != waiting.mark
    await consumer.stop(drain_s=0)
    await task
    assert not consumer.settling().due


async def test_what_a_client_cancels_is_not_the_end_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    broker, handler = MemoryBroker(partitions=1), Echo()
    leave, died = MemoryMembership.leave, asyncio.Event()

    async def die(self: MemoryMembership) -> None:
        await leave(self)
        if not died.is_set():
            died.set()
            task = asyncio.create_task(asyncio.sleep(60))
            task.cancel()
            await task  # as aiokafka awaits tasks that it cancelled

    monkeypatch.setattr(MemoryMembership, "leave", die)
    async with running(broker, handler) as consumer:
        publish(broker, b"a")
        await until(lambda: answers(broker)[b"a"] == 1)
        broker.fail_next_commit = LogError("no broker")
        publish(broker, b"b")
        await until(lambda: answers(broker)[b"b"] == 1)
        assert died.is_set()
        assert not consumer.settling().due


async def test_a_consumer_that_is_cancelled_ends() -> None:
    broker = MemoryBroker(partitions=1)
    consumer = TransactionalConsumer(broker, topic=INPUT, group="g", handler=Echo())
    task = asyncio.create_task(consumer.run())
    await until(lambda: not consumer.settling().due)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
