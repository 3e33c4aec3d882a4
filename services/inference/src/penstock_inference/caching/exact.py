"""The exact response cache: the same question to the same variant is answered once. Pure.

It belongs to one pump and holds the only copy of nothing: what it loses is generated again.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict

from penstock.v1 import admitted_pb2, common_pb2, engine_service_pb2, response_pb2, route_pb2
from penstock_inference.caching.keys import answer_key

__all__ = ["ENTRY_OVERHEAD_BYTES", "Hit", "ResponseCache", "hit_of", "is_complete"]

# Key, value, their place in the dictionary and the tuple around them: 267 measured, and some air.
ENTRY_OVERHEAD_BYTES = 320

_COMPLETE = (response_pb2.FINISH_REASON_STOP, response_pb2.FINISH_REASON_LENGTH)


@dataclasses.dataclass(frozen=True, slots=True)
class Hit:
    """An answer that need not be generated.

    Attributes:
        result: The answer as if an engine had given it, with no tokens used and no time taken.
        avoided: What the original answer used.
        similarity: Cosine of the question that was answered to this one; None where they are
            the same.
    """

    result: engine_service_pb2.WorkResult
    avoided: common_pb2.Usage
    similarity: float | None = None


def is_complete(result: engine_service_pb2.WorkResult) -> bool:
    """Whether a result is a whole answer, fit to be given again."""
    return not result.HasField("error") and result.finish_reason in _COMPLETE


def hit_of(answer: bytes, similarity: float | None = None) -> Hit:
    """A hit from a serialised result; every call makes a copy of its own."""
    result = engine_service_pb2.WorkResult.FromString(answer)
    avoided = common_pb2.Usage()
    avoided.CopyFrom(result.usage)
    # Present and zero: nothing was generated, and no time went into it.
    result.usage.Clear()
    result.usage.SetInParent()
    result.ClearField("first_token_s")
    result.ClearField("generation_s")
    return Hit(result, avoided, similarity)


class ResponseCache:
    """Answers by exact key, least recently used first out. Not for use from several threads.

    Args:
        max_bytes: Bound of all entries, their overhead included; 0 keeps nothing.
        ttl_s: How long an answer stands. A route names what answers, but a hosted model can
            change behind its name, and this bounds for how long that goes unseen.
        max_entries: Bound of their number.
    """

    def __init__(self, max_bytes: int, ttl_s: float, max_entries: int = 1_000_000) -> None:
        self._max_bytes = max_bytes
        self._ttl_s = ttl_s
        self._max_entries = max_entries
        self._entries: OrderedDict[bytes, tuple[float, bytes]] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def size_bytes(self) -> int:
        """What the entries take, their overhead included."""
        return self._bytes

    @staticmethod
    def key(admitted: admitted_pb2.AdmittedRequest, variant: route_pb2.Variant) -> bytes | None:
        """See `answer_key`."""
        return answer_key(admitted, variant)

    def get(self, key: bytes, now_s: float) -> Hit | None:
        """The answer under a key, if there is one that still stands.

        Args:
            key: From `key`.
            now_s: The present by a clock that never goes back, the same as given to `put`.
        """
        found = self._entries.get(key)
        if found is None:
            return None
        kept_s, answer = found
        if now_s - kept_s >= self._ttl_s:
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return hit_of(answer)

    def put(self, key: bytes, result: engine_service_pb2.WorkResult, now_s: float) -> bool:
        """Keeps a complete answer; returns whether it was kept.

        An answer that came from a cache has no usage and must not be put back: its time to live
        would begin anew.
        """
        if not is_complete(result):
            return False
        answer = result.SerializeToString()
        size = len(answer) + ENTRY_OVERHEAD_BYTES
        # One answer must not push out everything else.
        if size > self._max_bytes // 8:
            return False
        if key in self._entries:
            self._drop(key)
        self._entries[key] = (now_s, answer)
        self._bytes += size
        while self._bytes > self._max_bytes or len(self._entries) > self._max_entries:
            self._drop(next(iter(self._entries)))
        return True

    def clear(self) -> None:
        """Forgets everything."""
        self._entries.clear()
        self._bytes = 0

    def _drop(self, key: bytes) -> None:
        _, answer = self._entries.pop(key)
        self._bytes -= len(answer) + ENTRY_OVERHEAD_BYTES
