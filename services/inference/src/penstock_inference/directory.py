"""Which engine replicas are alive: they announce themselves, and are forgotten when they stop."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Protocol

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


class Directory:
    """Announcements with a time to live. Holds nothing that is not said again within a second."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, ttl_s: float = TTL_S) -> None:
        self._clock = clock
        self._ttl_s = ttl_s
        self._heard: dict[str, tuple[float, Announcement]] = {}

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
