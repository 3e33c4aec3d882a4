"""Where consumer groups stand: position, lag, and what an owner left beside the position."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

import penstock.kafka.tolerance  # noqa: F401 - a coordinator that moves is no empty group
from penstock.kafka.clients import stop_consumer
from penstock.kafka.ports import LogError
from penstock.kafka.progress import Progress, decode
from penstock.records import Partition

__all__ = ["KafkaGroups", "Standing"]

REQUEST_MS = 20_000


@dataclasses.dataclass(frozen=True, slots=True)
class Standing:
    """A group's place in one partition.

    Attributes:
        group: The consumer group.
        state: The group's, as the broker names it: `Stable`, `Empty`, ...
        members: How many consumers the group has.
        partition: The partition.
        position: The next offset to read.
        end: The offset after the last record that may be read.
        progress: What the owner left beside the position.
    """

    group: str
    state: str
    members: int
    partition: Partition
    position: int
    end: int
    progress: Progress

    @property
    def lag(self) -> int:
        """Offsets from the position to the end, less those that are done; markers count."""
        return max(0, self.end - self.position - self.progress.done.bit_count())


class KafkaGroups:
    """Reads the groups of a cluster.

    Example:
        async with KafkaGroups("127.0.0.1:9092") as groups:
            standings = await groups.standings("penstock")
    """

    def __init__(self, bootstrap: str, client_id: str = "penstock-groups") -> None:
        self._bootstrap = bootstrap
        self._client_id = client_id
        self._admin: Any = None
        self._consumer: Any = None

    async def __aenter__(self) -> Self:
        """Connects.

        Raises:
            LogError: Kafka cannot be reached.
        """
        self._admin = AIOKafkaAdminClient(
            bootstrap_servers=self._bootstrap,
            client_id=self._client_id,
            request_timeout_ms=REQUEST_MS,
        )
        # The end that readers of committed records see.
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap,
            client_id=self._client_id,
            isolation_level="read_committed",
        )
        try:
            await self._admin.start()
            await self._consumer.start()
        except (KafkaError, OSError) as error:
            await self.__aexit__(None, None, None)
            raise LogError(f"Kafka at {self._bootstrap} cannot be reached: {error}") from error
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._admin.close()
        await stop_consumer(self._consumer)

    async def standings(self, prefix: str) -> list[Standing]:
        """Where every group stands in topics under a prefix, by group, topic and partition.

        Raises:
            LogError: The cluster did not answer.
        """
        try:
            names = sorted(name for name, _ in await self._admin.list_consumer_groups())
            positions = {name: await self._positions(name, prefix) for name in names}
            present = [name for name in names if positions[name]]
            states = await self._states(present)
            tps = sorted({tp for name in present for tp in positions[name]})
            ends = await self._consumer.end_offsets(tps) if tps else {}
        except (KafkaError, TimeoutError) as error:
            raise LogError(f"groups cannot be described: {error!r}") from error
        return [
            Standing(
                group=name,
                state=states[name][0],
                members=states[name][1],
                partition=Partition(*tp),
                position=found.offset,
                end=ends[tp],
                progress=decode(found.metadata or ""),
            )
            for name in present
            for tp, found in sorted(positions[name].items())
        ]

    async def _positions(self, group: str, prefix: str) -> Mapping[TopicPartition, Any]:
        found = await self._admin.list_consumer_group_offsets(group)
        return {
            tp: position
            for tp, position in found.items()
            if tp.topic.startswith(f"{prefix}.") and position.offset >= 0
        }

    async def _states(self, names: Sequence[str]) -> dict[str, tuple[str, int]]:
        states: dict[str, tuple[str, int]] = {}
        if names:
            for response in await self._admin.describe_consumer_groups(list(names)):
                for _, name, state, _, _, members, *_ in response.groups:
                    states[name] = (state, len(members))
        return states
