"""What this instance knows of requests that were admitted or have ended lately. Pure, bounded."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Hashable

from penstock.v1 import response_pb2
from penstock_ingest import metrics

__all__ = ["Ended", "KnownIds", "Open", "ResponseIndex"]

# What an entry costs beside the response's own bytes, roughly.
OVERHEAD_BYTES = 512
# A request is answered, as expired, soon after its deadline.
LATE_S = 60.0
MAX_EARLY = 20_000


@dataclasses.dataclass(frozen=True, slots=True)
class Ended:
    """A request that has ended.

    Attributes:
        response: Its terminal response.
        key: The key of its records.
        at_s: When its response was written, in seconds since 1970.
        size: What it costs to keep, in bytes.
    """

    response: response_pb2.GenerateResponse
    key: bytes | None
    at_s: float
    size: int


class ResponseIndex:
    """Terminal responses by request id, the newest of them.

    Args:
        window_s: How long one is kept.
        max_bytes: How much is kept; the oldest go first.
    """

    def __init__(self, window_s: float, max_bytes: int) -> None:
        self._window_s = window_s
        self._max_bytes = max_bytes
        self._entries: OrderedDict[str, Ended] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def add(
        self, response: response_pb2.GenerateResponse, key: bytes | None, at_s: float, now_s: float
    ) -> None:
        """Keeps a response; a repeat of one that is kept does nothing."""
        known = self._entries.get(response.request_id)
        if known is not None:
            if not self._old(known, now_s):
                return
            # Its name was used again: after the window a key names another request.
            del self._entries[response.request_id]
            self._bytes -= known.size
        size = response.ByteSize() + len(key or b"") + OVERHEAD_BYTES
        self._entries[response.request_id] = Ended(response, key, at_s, size)
        self._bytes += size
        self._shrink(now_s)

    def find(self, request_id: str, tenant: str, now_s: float) -> Ended | None:
        """A tenant's request that ended within the window; another tenant's is not found."""
        entry = self._entries.get(request_id)
        if entry is None or entry.response.tenant != tenant or self._old(entry, now_s):
            return None
        return entry

    def _old(self, entry: Ended, now_s: float) -> bool:
        return entry.at_s < now_s - self._window_s

    def _shrink(self, now_s: float) -> None:
        while self._entries:
            oldest = next(iter(self._entries.values()))
            if self._bytes <= self._max_bytes and not self._old(oldest, now_s):
                break
            self._entries.popitem(last=False)
            self._bytes -= oldest.size
        metrics.INDEX_BYTES.set(self._bytes)


@dataclasses.dataclass(frozen=True, slots=True)
class Open:
    """A request that was admitted and has not ended, as far as is known here.

    Attributes:
        tenant: Whose it is.
        deadline_s: Its deadline, in seconds since 1970.
        keyed: Whether its client named it by an idempotency key.
        until_s: When it is forgotten if its end is never seen.
    """

    tenant: str
    deadline_s: float
    keyed: bool
    until_s: float


class KnownIds:
    """Which requests are on the log: those under way, and those whose client named them.

    An id that an idempotency key names is claimed before its record is written and confirmed when
    the record is read back. A claim whose transaction was undone may be repeated by the same
    claimant, so a record that is handled again after a fault is admitted, and its duplicate is not.

    What is under way is kept until it ends, or until its deadline is well past. Of what has ended
    only named ids are kept: for the window, and no more than `max_ended` of them.

    Args:
        window_s: How long a named id is kept after its end.
        max_ended: How many ended ids are kept; the oldest go first.
    """

    def __init__(self, window_s: float, max_ended: int = 200_000) -> None:
        self._window_s = window_s
        self._max_ended = max_ended
        self._claims: OrderedDict[str, tuple[Hashable, float]] = OrderedDict()
        self._open: dict[str, Open] = {}
        # Ids of `_open` by the minute in which they are forgotten.
        self._minutes: dict[int, set[str]] = {}
        self._minute = 0
        self._ended: OrderedDict[str, float] = OrderedDict()
        # Ended before they were seen admitted: two readers, neither waits for the other.
        self._early: OrderedDict[str, float] = OrderedDict()

    def __contains__(self, request_id: str) -> bool:
        return any(request_id in ids for ids in (self._open, self._ended, self._claims))

    def __len__(self) -> int:
        return len(self._open) + len(self._ended) + len(self._claims) + len(self._early)

    def claim(self, request_id: str, claimant: Hashable, now_s: float) -> bool:
        """Whether the claimant may admit the request now; False for a repeat."""
        self._forget(now_s)
        if request_id in self._open or request_id in self._ended:
            return False
        claim = self._claims.setdefault(request_id, (claimant, now_s))
        return claim[0] == claimant

    def release(self, request_id: str) -> None:
        """Gives a claim up whose record was not written."""
        self._claims.pop(request_id, None)

    def confirm(
        self, request_id: str, tenant: str, deadline_s: float, now_s: float, *, keyed: bool
    ) -> None:
        """The request is on the log, whoever admitted it; a repeat does nothing."""
        self._claims.pop(request_id, None)
        early = self._early.pop(request_id, None) is not None
        until_s = deadline_s + (self._window_s if keyed else LATE_S)
        if early or request_id in self._ended or request_id in self._open or until_s <= now_s:
            return
        self._open[request_id] = Open(tenant, deadline_s, keyed, until_s)
        self._minutes.setdefault(_minute(until_s), set()).add(request_id)
        self._forget(now_s)

    def end(self, request_id: str, at_s: float, now_s: float, *, keyed: bool) -> None:
        """The request has ended."""
        self._claims.pop(request_id, None)
        known = self._open.pop(request_id, None)
        if known is not None:
            self._minutes[_minute(known.until_s)].discard(request_id)
        if keyed or (known is not None and known.keyed):
            self._ended.setdefault(request_id, at_s)
        elif known is None:
            self._early.setdefault(request_id, at_s)
        self._forget(now_s)

    def has_ended(self, request_id: str) -> bool:
        """Whether a named request has ended; its response may be held no longer."""
        return request_id in self._ended

    def under_way(self, request_id: str, tenant: str) -> Open | None:
        """A tenant's request that has not ended; another tenant's is not found."""
        known = self._open.get(request_id)
        return known if known is not None and known.tenant == tenant else None

    def _forget(self, now_s: float) -> None:
        horizon_s = now_s - self._window_s
        while self._claims and next(iter(self._claims.values()))[1] < horizon_s:
            self._claims.popitem(last=False)
        for ids, most in ((self._ended, self._max_ended), (self._early, MAX_EARLY)):
            while ids and (len(ids) > most or next(iter(ids.values())) < horizon_s):
                ids.popitem(last=False)
        if _minute(now_s) != self._minute:
            self._minute = _minute(now_s)
            for minute in [m for m in self._minutes if m < self._minute]:
                for request_id in self._minutes.pop(minute):
                    del self._open[request_id]


def _minute(instant_s: float) -> int:
    return int(instant_s // 60)
