"""Which engine replicas are alive, and what work pumps have for them.

Both say so every second, and are forgotten when they stop.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from penstock_inference.scaling import Load, total

__all__ = ["ACTOR_NAME", "TTL_S", "Announcement", "Directory", "DirectoryClient"]

ACTOR_NAME = "penstock-directory"
ANNOUNCE_S = 1.0
TTL_S = 5.0


@dataclasses.dataclass(frozen=True, slots=True)
class Announcement:
    """What an engine replica says of itself.

    Attributes:
        replica_id: Its name for as long as it lives.
        address: Where its stream is dialled, host:port.
        model: The base model that it serves.
        load_tokens: Tokens that its running work may still take.
        adapters: The adapters it has loaded.
        slots: Generations that it runs at a time; more wait inside it. 0 says nothing.
        running: Generations that it has, running or waiting.
    """

    replica_id: str
    address: str
    model: str
    load_tokens: int
    adapters: Sequence[str] = ()
    slots: int = 0
    running: int = 0


class DirectoryClient(Protocol):
    """The directory as replicas and pumps reach it."""

    async def announce(self, announcement: Announcement) -> None:
        """Says that a replica is alive; worth `TTL_S` seconds."""
        ...

    async def withdraw(self, replica_id: str) -> None:
        """Says that a replica takes no more work."""
        ...

    async def live(self) -> Sequence[Announcement]:
        """The replicas that announced themselves lately."""
        ...

    async def report(self, pump: str, work: Mapping[str, Load]) -> None:
        """Says what a pump has ahead of each base model's engines."""
        ...


class Directory:
    """Announcements with a time to live. Holds nothing that is not said again within a second."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, ttl_s: float = TTL_S) -> None:
        self._clock = clock
        self._ttl_s = ttl_s
        self._heard: dict[str, tuple[float, Announcement]] = {}
        self._work: dict[str, tuple[float, Mapping[str, Load]]] = {}

    def announce(self, announcement: Announcement) -> None:
        """Notes that a replica is alive now."""
        self._heard[announcement.replica_id] = (self._clock(), announcement)

    def withdraw(self, replica_id: str) -> None:
        """Forgets a replica at once."""
        self._heard.pop(replica_id, None)

    def live(self) -> list[Announcement]:
        """The replicas heard within the time to live, by their ids."""
        horizon = self._clock() - self._ttl_s
        self._heard = {k: v for k, v in self._heard.items() if v[0] >= horizon}
        return [announcement for _, (_, announcement) in sorted(self._heard.items())]

    def report(self, pump: str, work: Mapping[str, Load]) -> None:
        """Notes what a pump has ahead of each base model's engines."""
        self._work[pump] = (self._clock(), work)

    def ahead(self, model: str) -> Load | None:
        """The work ahead of a base model's engines; None where no pump has said anything lately."""
        horizon = self._clock() - self._ttl_s
        self._work = {pump: v for pump, v in self._work.items() if v[0] >= horizon}
        if not self._work:
            return None
        return total(work.get(model, Load()) for _, work in self._work.values())
