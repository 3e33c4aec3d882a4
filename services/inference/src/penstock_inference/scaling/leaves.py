"""Which engine replica may start anew: one of a model at a time, where another lives. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

__all__ = ["LEAVE_S", "Leaves"]

# What one that goes, and the one that comes for it, may take before the next may go.
LEAVE_S = 600.0


@dataclasses.dataclass(frozen=True, slots=True)
class _Leave:
    replica_id: str
    since_s: float
    known: frozenset[str]


class Leaves:
    """Grants leaves; kept in memory only, which a restart forgets."""

    def __init__(self) -> None:
        self._going: dict[str, _Leave] = {}

    def may_go(self, model: str, replica_id: str, live: Collection[str], now_s: float) -> bool:
        """Whether a replica may go now; asked again, the same one still may.

        Args:
            model: Its base model.
            replica_id: The replica.
            live: All replicas of the model that take work.
            now_s: Any clock that never goes back, in seconds.
        """
        leave = self._going.get(model)
        if self.busy(model, live, now_s):
            return leave is not None and leave.replica_id == replica_id
        if not any(other != replica_id for other in live):
            return False
        self._going[model] = _Leave(replica_id, now_s, frozenset((*live, replica_id)))
        return True

    def busy(self, model: str, live: Collection[str], now_s: float) -> bool:
        """Whether one of a model is on its way: until another has come for it, or time is up."""
        leave = self._going.get(model)
        if leave is None:
            return False
        came = leave.replica_id not in live and not leave.known.issuperset(live)
        if not came and now_s - leave.since_s < LEAVE_S:
            return True
        del self._going[model]
        return False
