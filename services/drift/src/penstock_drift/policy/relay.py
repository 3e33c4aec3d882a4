"""Brings versions of the policy and of routes into the log of `signals`.

Every worker does so for every version that it reads: a repeat, or a lower version after a higher
one, means nothing to whoever reads `signals`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from penstock.codec import decode
from penstock.errors import InvalidRequest
from penstock.kafka.ports import LogError, Publisher
from penstock.records import Outgoing, Record
from penstock.telemetry import logger
from penstock.v1 import drift_pb2, route_pb2
from penstock_drift.policy.document import Policy, PolicyError, parse_policy
from penstock_drift.records.signal_wire import SignalWriter
from penstock_drift.records.values import PolicyChange, Traffic

__all__ = ["Relay"]

log = logger(__name__)

RETRY_S = 2.0


class Relay:
    """Follows the topics `policies` and `routes`.

    Args:
        writer: Makes records of `signals`; it knows the partitions by `count`.
        publisher: Writes them.

    Attributes:
        policy: The one in force: the newest that was read, or the default.
    """

    def __init__(self, writer: SignalWriter, publisher: Publisher) -> None:
        self.policy: Policy = parse_policy("")
        self._writer = writer
        self._publisher = publisher
        self._change: PolicyChange | None = None
        # The newest of each key of `policies` and `routes` that is not written yet.
        self._waiting: dict[str, Sequence[Outgoing]] = {}
        self._changed = asyncio.Event()

    def take_policy(self, record: Record) -> None:
        """Takes a record of `policies` in; what is no newer policy does nothing."""
        if record.value is None:
            return
        try:
            found = decode(record, drift_pb2.PolicyVersion)
            policy = parse_policy(found.document)
        except (InvalidRequest, PolicyError) as error:
            log.error("a policy is refused", reason=str(error), **record.where())
            return
        if self._change is not None and found.version <= self._change.version:
            return
        self._change, self.policy = PolicyChange(found.version, found.document), policy
        self._put("policy", self._writer.everywhere(self._change))
        log.info("a policy is in force", version=found.version)

    def count(self, partitions: int) -> None:
        """Notes how many partitions `signals` has; new ones hear of the policy in force."""
        grown = partitions > self._writer.partitions
        self._writer.partitions = partitions
        if grown and self._change is not None:
            self._put("policy", self._writer.everywhere(self._change))

    def take_route(self, record: Record) -> None:
        """Takes a record of `routes` in; what is no route does nothing."""
        if record.value is None:
            model = (record.key or b"").decode("utf-8", "replace")
            found = Traffic(model, 0, ())
        else:
            try:
                route = decode(record, route_pb2.Route)
            except InvalidRequest as error:
                log.warning("a route is passed over", reason=str(error), **record.where())
                return
            serving = tuple(variant.name for variant in route.variants if variant.weight)
            found = Traffic(route.model, route.version, serving)
        self._put(f"route/{found.model}", [self._writer.traffic(found)])

    async def run(self) -> None:
        """Writes the newest of each, until cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            writing, self._waiting = self._waiting, {}
            try:
                await self._publisher.publish([each for some in writing.values() for each in some])
            except LogError as error:
                log.warning("policies and routes wait to be written", error=str(error))
                await asyncio.sleep(RETRY_S)
                self._waiting = writing | self._waiting
                self._changed.set()

    def _put(self, name: str, records: Sequence[Outgoing]) -> None:
        self._waiting[name] = records
        self._changed.set()
