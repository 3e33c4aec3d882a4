"""What this instance knows of requests that were admitted or have ended lately. Pure, bounded."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Hashable

from penstock.v1 import response_pb2
from penstock_ingest import metrics

__all__ = ["Ended", "KnownIds", "ResponseIndex"]

# What an entry costs beside the response's own bytes, roughly.
OVERHEAD_BYTES = 512


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
        if response.request_id in self._entries:
            return
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


@dataclasses.dataclass(slots=True)
class _Known:
    claimant: Hashable
    on_log: bool
    at_s: float
    ended: bool = False


class KnownIds:
    """Ids that clients named by idempotency keys and that are not to be admitted again.

    An id is claimed before its record is written and confirmed when the record is read back. A
    claim whose transaction was undone may be repeated by the same claimant, so a record that is
    handled again after a fault is admitted, and its duplicate is not.

    Args:
        window_s: How long an id is kept.
        max_ids: How many are kept; the oldest go first.
    """

    def __init__(self, window_s: float, max_ids: int = 200_000) -> None:
        self._window_s = window_s
        self._max_ids = max_ids
        self._ids: OrderedDict[str, _Known] = OrderedDict()

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._ids

    def claim(self, request_id: str, claimant: Hashable, now_s: float) -> bool:
        """Whether the claimant may admit the request now; False for a repeat."""
        self._shrink(now_s)
        known = self._ids.get(request_id)
        if known is not None:
            return not known.on_log and known.claimant == claimant
        self._ids[request_id] = _Known(claimant, on_log=False, at_s=now_s)
        return True

    def release(self, request_id: str) -> None:
        """Gives a claim up whose record was not written."""
        known = self._ids.get(request_id)
        if known is not None and not known.on_log:
            del self._ids[request_id]

    def confirm(self, request_id: str, at_s: float, now_s: float) -> None:
        """The request is on the log, whoever admitted it."""
        known = self._ids.setdefault(request_id, _Known(None, on_log=True, at_s=at_s))
        known.on_log = True
        known.at_s = max(known.at_s, at_s)
        self._ids.move_to_end(request_id)
        self._shrink(now_s)

    def end(self, request_id: str) -> None:
        """The request has ended."""
        known = self._ids.get(request_id)
        if known is not None:
            known.ended = True

    def has_ended(self, request_id: str) -> bool:
        """Whether a known request has ended; its response may be held no longer."""
        known = self._ids.get(request_id)
        return known is not None and known.ended

    def _shrink(self, now_s: float) -> None:
        while self._ids:
            oldest = next(iter(self._ids.values()))
            if len(self._ids) <= self._max_ids and oldest.at_s >= now_s - self._window_s:
                break
            self._ids.popitem(last=False)
