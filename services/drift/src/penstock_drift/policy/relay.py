"""Brings versions of the policy into the log of `signals`, and to the extraction.

Every worker does so for every version that it reads: a repeat, or a lower version after a higher
one, means nothing to whoever reads `signals`.
"""

from __future__ import annotations

import asyncio

from penstock.codec import decode
from penstock.errors import InvalidRequest
from penstock.kafka.ports import LogError, Publisher
from penstock.records import Record
from penstock.telemetry import logger
from penstock.v1 import drift_pb2
from penstock_drift.policy.document import Policy, PolicyError, parse_policy
from penstock_drift.records.signal_wire import SignalWriter
from penstock_drift.records.values import PolicyChange

__all__ = ["PolicyRelay"]

log = logger(__name__)

RETRY_S = 2.0


class PolicyRelay:
    """Follows the topic `policies`.

    Args:
        writer: Makes records of `signals`.
        publisher: Writes them.

    Attributes:
        policy: The one in force: the newest that was read, or the default.
    """

    def __init__(self, writer: SignalWriter, publisher: Publisher) -> None:
        self.policy: Policy = parse_policy("")
        self._writer = writer
        self._publisher = publisher
        self._newest: PolicyChange | None = None
        self._told = 0
        self._changed = asyncio.Event()

    def take(self, record: Record) -> None:
        """Takes a record of `policies` in; what is no newer policy does nothing."""
        if record.value is None:
            return
        try:
            found = decode(record, drift_pb2.PolicyVersion)
            policy = parse_policy(found.document)
        except (InvalidRequest, PolicyError) as error:
            log.error("a policy is refused", reason=str(error), **record.where())
            return
        if self._newest is not None and found.version <= self._newest.version:
            return
        self._newest = PolicyChange(found.version, found.document)
        self.policy = policy
        self._changed.set()
        log.info("a policy is in force", version=found.version)

    async def run(self) -> None:
        """Writes each newest version to every partition, until cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            change = self._newest
            if change is None or change.version <= self._told:
                continue
            try:
                await self._publisher.publish(self._writer.everywhere(change))
                self._told = change.version
            except LogError as error:
                log.warning("a policy waits to be written", error=str(error))
                await asyncio.sleep(RETRY_S)
                self._changed.set()
