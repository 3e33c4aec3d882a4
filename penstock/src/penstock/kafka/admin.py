"""Brings a cluster's topics to what `penstock.topics` declares.

Planning is pure: what is observed and what is declared give a list of changes. `KafkaAdmin`
observes and applies. Applying twice changes nothing the second time.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self, assert_never

from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, UnknownTopicOrPartitionError, for_code
from aiokafka.protocol.metadata import MetadataRequest

from penstock.kafka.ports import LogError
from penstock.topics import Partitions, Topic

__all__ = ["Change", "KafkaAdmin", "Observed", "Sizes", "TopicRefused", "plan"]

REQUEST_MS = 20_000
VISIBLE_S = 30.0
# DescribeConfigs' code for a value that was set on the topic itself (KIP-226).
_SET_ON_TOPIC = 1


class TopicRefused(LogError):
    """The cluster has a topic in a form that cannot be changed to the declared one."""


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How large a deployment's topics are.

    Attributes:
        work: Partitions of `requests`, `admitted`, `responses` and their like.
        reply: Partitions of `replies` and `tokens`: one for each ingest instance.
        replication: Copies of every partition; at most the number of brokers.
    """

    work: int = 4
    reply: int = 1
    replication: int = 1

    def partitions(self, topic: Topic) -> int:
        """How many partitions a topic has in this deployment."""
        match topic.partitions:
            case Partitions.WORK:
                return self.work
            case Partitions.REPLY:
                return self.reply
            case Partitions.ONE:
                return 1
        assert_never(topic.partitions)


@dataclasses.dataclass(frozen=True)
class Observed:
    """A topic as the cluster has it.

    Attributes:
        partitions: How many there are.
        replication: Copies of partition 0.
        config: Every setting with its effective value.
        own: Those of them that were set on the topic itself.
    """

    partitions: int
    replication: int
    config: Mapping[str, str]
    own: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Change:
    """What one topic needs; nothing, where it is as declared.

    Attributes:
        name: The topic's full name.
        partitions: How many it shall have.
        before: How many it has; 0 where the topic is not there.
        config: Settings to change: name to (value now, declared value).
    """

    name: str
    partitions: int
    before: int
    config: Mapping[str, tuple[str | None, str]]

    @property
    def creates(self) -> bool:
        """Whether the topic is new."""
        return self.before == 0

    @property
    def grows(self) -> bool:
        """Whether partitions are added to a topic that is there."""
        return 0 < self.before < self.partitions

    def __bool__(self) -> bool:
        return self.before != self.partitions or bool(self.config)

    def __str__(self) -> str:
        if self.creates:
            return f"created with {self.partitions} partition{'s' * (self.partitions > 1)}"
        parts = [f"{name}: {now} -> {then}" for name, (now, then) in sorted(self.config.items())]
        if self.grows:
            parts.insert(0, f"partitions: {self.before} -> {self.partitions}")
        return ", ".join(parts) or "as declared"


def plan(
    topics: Sequence[Topic], prefix: str, sizes: Sizes, observed: Mapping[str, Observed]
) -> list[Change]:
    """What brings the observed topics to the declared ones, in the table's order.

    Raises:
        TopicRefused: A topic has more partitions than declared; Kafka cannot take any away.
    """
    changes = []
    shrinking = []
    for topic in topics:
        name, wanted, declared = topic.full_name(prefix), sizes.partitions(topic), topic.config()
        seen = observed.get(name)
        if seen is None:
            config = {key: (None, value) for key, value in declared.items()}
            changes.append(Change(name, wanted, 0, config))
            continue
        if seen.partitions > wanted:
            shrinking.append(f"{name} has {seen.partitions} and {wanted} are declared")
        drift: dict[str, tuple[str | None, str]] = {
            key: (seen.config.get(key), value)
            for key, value in declared.items()
            if seen.config.get(key) != value
        }
        changes.append(Change(name, wanted, seen.partitions, drift))
    if shrinking:
        raise TopicRefused(
            f"Kafka cannot take partitions away: {'; '.join(shrinking)}. Ask for as many as there "
            "are (--work-partitions, --reply-partitions, or PENSTOCK_CLI_WORK_PARTITIONS and "
            "PENSTOCK_CLI_REPLY_PARTITIONS), or delete the topics and apply again"
        )
    return changes


class KafkaAdmin:
    """Observes and changes the topics of a cluster.

    Example:
        async with KafkaAdmin("127.0.0.1:9092") as admin:
            observed = await admin.observe("penstock")
            changes = plan(TOPICS, "penstock", Sizes(), observed)
            await admin.apply(changes, observed, replication=1)
    """

    def __init__(self, bootstrap: str, client_id: str = "penstock-admin") -> None:
        self._bootstrap = bootstrap
        self._client_id = client_id
        self._client: Any = None

    async def __aenter__(self) -> Self:
        """Connects.

        Raises:
            LogError: Kafka cannot be reached.
        """
        client = AIOKafkaAdminClient(
            bootstrap_servers=self._bootstrap,
            client_id=self._client_id,
            request_timeout_ms=REQUEST_MS,
        )
        try:
            await client.start()
        except (KafkaError, OSError) as error:
            await client.close()
            raise LogError(f"Kafka at {self._bootstrap} cannot be reached: {error}") from error
        self._client = client
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._client.close()

    async def observe(self, prefix: str) -> dict[str, Observed]:
        """The topics under a prefix, by full name.

        Raises:
            LogError: The cluster did not answer.
        """
        try:
            names = await self._client.list_topics()
            return await self._describe([n for n in names if n.startswith(f"{prefix}.")])
        except (KafkaError, TimeoutError) as error:
            raise LogError(f"topics cannot be described: {error!r}") from error

    async def apply(
        self, changes: Sequence[Change], observed: Mapping[str, Observed], replication: int
    ) -> None:
        """Makes the changes and returns when the brokers show them.

        Raises:
            LogError: The cluster refused a change; those before it may have been made.
        """
        try:
            await self._create([change for change in changes if change.creates], replication)
            await self._grow([change for change in changes if change.grows])
            await self._alter([c for c in changes if c.config and not c.creates], observed)
            await self._await_visible(changes)
        except (KafkaError, TimeoutError) as error:
            raise LogError(f"topics cannot be changed: {error}") from error

    async def _create(self, changes: Sequence[Change], replication: int) -> None:
        if not changes:
            return
        topics = [
            NewTopic(
                name=change.name,
                num_partitions=change.partitions,
                replication_factor=replication,
                topic_configs={key: value for key, (_, value) in change.config.items()},
            )
            for change in changes
        ]
        response = await self._client.create_topics(topics)
        for name, code, *message in response.topic_errors:
            # Somebody else applied at the same time: the next plan shows what is left to do.
            if code and for_code(code).__name__ != "TopicAlreadyExistsError":
                raise LogError(f"{name} cannot be created: {_reason(code, message)}")

    async def _grow(self, changes: Sequence[Change]) -> None:
        if changes:
            await self._client.create_partitions(
                {change.name: NewPartitions(change.partitions) for change in changes}
            )

    async def _alter(self, changes: Sequence[Change], observed: Mapping[str, Observed]) -> None:
        if not changes:
            return
        # AlterConfigs replaces all of a topic's own settings: those that we do not declare are
        # sent along, so that an operator's choice survives.
        resources = [
            ConfigResource(
                ConfigResourceType.TOPIC,
                change.name,
                {
                    **observed[change.name].own,
                    **{key: value for key, (_, value) in change.config.items()},
                },
            )
            for change in changes
        ]
        for response in await self._client.alter_configs(resources):
            for code, message, _, name in response.resources:
                if code:
                    raise LogError(f"{name} cannot be changed: {_reason(code, [message])}")

    async def _configs(self, names: Sequence[str]) -> dict[str, tuple[dict[str, str], ...]]:
        """All settings of each topic that the broker knows, and those that are its own."""
        if not names:
            return {}
        resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
        found: dict[str, tuple[dict[str, str], ...]] = {}
        for response in await self._client.describe_configs(resources):
            for code, message, _, name, entries in response.resources:
                if code == UnknownTopicOrPartitionError.errno:
                    continue  # another broker than the one that listed it, and a step behind
                if code:
                    raise LogError(f"{name} cannot be described: {_reason(code, [message])}")
                found[name] = (
                    {entry[0]: entry[1] for entry in entries},
                    {entry[0]: entry[1] for entry in entries if entry[3] == _SET_ON_TOPIC},
                )
        return found

    async def _await_visible(self, changes: Sequence[Change]) -> None:
        # The controller has acknowledged; brokers follow its log a little later.
        open_changes = {change.name: change for change in changes if change}
        async with asyncio.timeout(VISIBLE_S):
            while open_changes:
                for name, seen in (await self._describe(list(open_changes))).items():
                    if _done(open_changes[name], seen):
                        del open_changes[name]
                await asyncio.sleep(0.05 if open_changes else 0)
            await self._await_every_broker([c for c in changes if c.creates or c.grows])

    async def _await_every_broker(self, changes: Sequence[Change]) -> None:
        # Whoever comes next may ask another broker than the one that was asked here.
        if not changes:
            return
        brokers = (await self._client.describe_cluster())["brokers"]
        await asyncio.gather(*(self._await_broker(each["node_id"], changes) for each in brokers))

    async def _await_broker(self, node_id: int, changes: Sequence[Change]) -> None:
        waiting = {change.name: change.partitions for change in changes}
        while waiting:
            request = MetadataRequest(sorted(waiting))
            try:
                answer = await self._client._send_request_to_node(node_id, request)
            except (KafkaError, TimeoutError):
                return  # it is away; it follows the log before it serves anybody again
            for name, partitions in _led(answer.to_object()["topics"]).items():
                if len(partitions) == waiting[name]:
                    del waiting[name]
            await asyncio.sleep(0.05 if waiting else 0)

    async def _describe(self, names: Sequence[str]) -> dict[str, Observed]:
        """Those of the topics that are there, each with a leader for every partition."""
        described = _led(await self._client.describe_topics(list(names)))
        configs = await self._configs(sorted(described))
        return {
            name: Observed(
                partitions=len(partitions),
                replication=len(partitions[0]["replicas"]) if partitions else 0,
                config=configs[name][0],
                own=configs[name][1],
            )
            for name, partitions in described.items()
            if name in configs
        }


def _led(topics: Sequence[dict[str, Any]]) -> dict[str, Sequence[dict[str, Any]]]:
    """The partitions of those topics that are there with a leader for each."""
    return {
        topic["topic"]: topic["partitions"]
        for topic in topics
        if not topic["error_code"]
        and all(partition["leader"] >= 0 for partition in topic["partitions"])
    }


def _done(change: Change, seen: Observed) -> bool:
    return seen.partitions == change.partitions and all(
        seen.config.get(key) == value for key, (_, value) in change.config.items()
    )


def _reason(code: int, message: Sequence[str | None]) -> str:
    text = "; ".join(part for part in message if part)
    return f"{for_code(code).__name__}{': ' + text if text else ''}"
