"""How many requests of a tenant are queued: admitted and not ended. Pure.

Counted from the log, so that every instance of ingest counts what all of them admitted. An instance
knows its own admissions at once and the others' after the time that a record takes to be read back:
for that long, several instances together may admit more than the bound.
"""

from __future__ import annotations

import dataclasses
import heapq
import math
from collections import OrderedDict

from penstock.v1 import admitted_pb2
from penstock_ingest.errors import Overloaded

__all__ = ["TenantQuota"]

# An answer may come a little after the deadline; past this a request counts no more, ended or not.
GRACE_S = 60.0
# How long an end is remembered whose beginning has not been read: two readers read two topics, and
# neither waits for the other. Until ingest is ready they read what the last one left.
EARLY_S = 120.0
MAX_EARLY = 500_000
# What expires is looked at so often.
SLOT_S = 1.0


@dataclasses.dataclass(slots=True)
class _Queued:
    tenant: str
    slot: int
    on_log: bool


class TenantQuota:
    """Bounds what one tenant has queued.

    Every request that begins is counted until it ends, is released, or its deadline is well past,
    whichever comes first; so a count cannot stay behind. Instants are in seconds since 1970.

    Args:
        max_queued: A tenant's bound; 0 bounds nobody, and then nothing is counted.
        grace_s: How long after its deadline a request that nobody ended counts.
    """

    def __init__(self, max_queued: int, grace_s: float = GRACE_S) -> None:
        self._max_queued = max_queued
        self._grace_s = grace_s
        self._open: dict[str, _Queued] = {}
        self._counts: dict[str, int] = {}
        # Ids by the slot of time in which they expire, so that memory follows what is queued.
        self._slots: dict[int, set[str]] = {}
        self._order: list[int] = []
        self._early: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._open)

    def queued(self, tenant: str, now_s: float) -> int:
        """How many requests of a tenant are queued."""
        self._expire(now_s)
        return self._counts.get(tenant, 0)

    def reserve(self, admitted: admitted_pb2.AdmittedRequest, now_s: float) -> None:
        """Counts a request that is about to be written; again for one that is counted is free.

        Raises:
            Overloaded: The tenant has as many as it may.
        """
        if not self._max_queued or admitted.request_id in self._open:
            return
        tenant = admitted.request.tenant
        if self.queued(tenant, now_s) >= self._max_queued:
            raise Overloaded(
                f"tenant {tenant} has {self._max_queued} requests queued, as many as a tenant "
                "may; wait for answers before sending more, or have the operator raise "
                "PENSTOCK_INGEST_MAX_QUEUED_PER_TENANT",
                field="tenant",
            )
        self._begin(admitted, now_s, on_log=False)

    def release(self, request_id: str) -> None:
        """Counts a request no more that could not be written."""
        queued = self._open.get(request_id)
        if queued is not None and not queued.on_log:
            self._forget(request_id, queued)

    def confirm(self, admitted: admitted_pb2.AdmittedRequest, now_s: float) -> None:
        """Counts a request that is on the log, whoever admitted it; a repeat does nothing."""
        if not self._max_queued:
            return
        self._expire(now_s)
        if self._early.pop(admitted.request_id, None) is not None:
            return
        queued = self._open.get(admitted.request_id)
        if queued is not None:
            queued.on_log = True
        else:
            self._begin(admitted, now_s, on_log=True)

    def end(self, request_id: str, now_s: float) -> None:
        """Counts a request no more that has ended, also where its beginning is read later."""
        if not self._max_queued:
            return
        self._expire(now_s)
        queued = self._open.get(request_id)
        if queued is not None:
            self._forget(request_id, queued)
        if queued is None or not queued.on_log:
            self._early.setdefault(request_id, now_s)

    def _begin(self, admitted: admitted_pb2.AdmittedRequest, now_s: float, *, on_log: bool) -> None:
        request_id, tenant = admitted.request_id, admitted.request.tenant
        slot = math.ceil((admitted.deadline.seconds + self._grace_s) / SLOT_S)
        if slot * SLOT_S <= now_s:
            return
        self._open[request_id] = _Queued(tenant, slot, on_log)
        self._counts[tenant] = self._counts.get(tenant, 0) + 1
        ids = self._slots.get(slot)
        if ids is None:
            ids = self._slots[slot] = set()
            heapq.heappush(self._order, slot)
        ids.add(request_id)

    def _forget(self, request_id: str, queued: _Queued) -> None:
        del self._open[request_id]
        # Expiry takes a slot out before it forgets what is in it.
        self._slots.get(queued.slot, set()).discard(request_id)
        left = self._counts[queued.tenant] - 1
        if left:
            self._counts[queued.tenant] = left
        else:
            del self._counts[queued.tenant]

    def _expire(self, now_s: float) -> None:
        while self._order and self._order[0] * SLOT_S <= now_s:
            for request_id in self._slots.pop(heapq.heappop(self._order)):
                self._forget(request_id, self._open[request_id])
        while self._early:
            oldest_s = next(iter(self._early.values()))
            if len(self._early) <= MAX_EARLY and oldest_s > now_s - EARLY_S:
                break
            self._early.popitem(last=False)
