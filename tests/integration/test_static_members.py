"""A member that restarts within its session gets its partitions back, and nobody else's move."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Callable, Sequence

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from penstock.kafka.broker import KafkaBroker
from penstock.kafka.ports import Membership
from penstock.records import Partition
from penstock_native.kafka import KafkaServer

pytestmark = pytest.mark.integration

PARTITIONS = 4
SESSION_S = 10.0


class Member:
    """One place in the group, and every rebalance that it saw."""

    def __init__(self, broker: KafkaBroker, topic: str) -> None:
        self._broker = broker
        self._topic = topic
        self._membership: Membership | None = None
        self._polling: asyncio.Task[None] | None = None
        self.rebalances: list[tuple[str, tuple[int, ...]]] = []
        self.held: set[int] = set()

    async def revoked(self, partitions: Sequence[Partition]) -> None:
        self.rebalances.append(("revoked", tuple(sorted(p.number for p in partitions))))

    async def assigned(self, partitions: Sequence[Partition]) -> None:
        self.held = {p.number for p in partitions}
        self.rebalances.append(("assigned", tuple(sorted(self.held))))

    async def start(self) -> None:
        self.rebalances.clear()
        self.held = set()
        membership = await self._broker.join(f"g-{self._topic}", self._topic, self)

        async def poll() -> None:
            everything = [Partition(self._topic, n) for n in range(PARTITIONS)]
            while True:
                await membership.poll(0.1, 100, [p for p in everything if p.number in self.held])

        self._membership, self._polling = membership, asyncio.create_task(poll())

    async def stop(self) -> None:
        if self._membership is None or self._polling is None:
            return
        self._polling.cancel()
        await asyncio.gather(self._polling, return_exceptions=True)
        await self._membership.leave()
        self._membership = None


@contextlib.asynccontextmanager
async def pair(kafka: KafkaServer) -> AsyncIterator[tuple[Member, Member]]:
    topic = uuid.uuid4().hex[:8]
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(topic, PARTITIONS, 1)])
    await admin.close()
    one, two = (
        Member(KafkaBroker(kafka.bootstrap, f"c{n}", instance_id=f"member-{n}"), topic)
        for n in range(2)
    )
    try:
        await one.start()
        await two.start()
        await until(lambda: len(one.held) == len(two.held) == PARTITIONS // 2)
        yield one, two
    finally:
        await asyncio.gather(one.stop(), two.stop())


async def until(condition: Callable[[], bool], timeout_s: float = 60) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("restarted", [0, 1], ids=["the leader", "the other"])
async def test_a_restart_within_the_session_moves_nothing(
    kafka: KafkaServer, restarted: int
) -> None:
    async with pair(kafka) as members:
        member, other = members[restarted], members[1 - restarted]
        before = (set(member.held), set(other.held))
        other.rebalances.clear()
        await member.stop()
        await member.start()
        await until(lambda: bool(member.held))
        await asyncio.sleep(4)  # a rebalance would be announced by the next heartbeat, after 3 s
        assert (member.held, other.held) == before
        assert other.rebalances == []


async def test_who_does_not_come_back_is_succeeded_after_the_session(kafka: KafkaServer) -> None:
    async with pair(kafka) as (one, two):
        await one.stop()
        started = asyncio.get_running_loop().time()
        await until(lambda: len(two.held) == PARTITIONS)
        assert asyncio.get_running_loop().time() - started > SESSION_S / 2
