"""Which engine replicas are alive, what work pumps have for them, and what is wanted of them.

Both say so every second, and are forgotten when they stop.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from penstock_inference.scaling.decision import Load, Outlook, total
from penstock_inference.scaling.leaves import Leaves

__all__ = [
    "ACTOR_NAME",
    "TTL_S",
    "Announcement",
    "Directory",
    "DirectoryClient",
    "Restart",
    "Wishes",
]

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
        seconds_per_token: How slow it was lately; 0 where it had no work.
    """

    replica_id: str
    address: str
    model: str
    load_tokens: int
    adapters: Sequence[str] = ()
    slots: int = 0
    running: int = 0
    seconds_per_token: float = 0.0


@dataclasses.dataclass(frozen=True, slots=True)
class Restart:
    """A replica that is to start anew.

    Attributes:
        measure_id: The measure that wants it.
        model: Its base model.
        replica_id: Which one.
    """

    measure_id: str
    model: str
    replica_id: str


@dataclasses.dataclass(frozen=True, slots=True)
class Wishes:
    """The measures in force, as a pump read them.

    Attributes:
        floors: By base model, the fewest replicas.
        restarts: Replicas to start anew.
    """

    floors: Mapping[str, int] = dataclasses.field(default_factory=dict)
    restarts: Sequence[Restart] = ()


NONE = Wishes()


class DirectoryClient(Protocol):
    """The directory as replicas and pumps reach it."""

    async def announce(self, announcement: Announcement) -> str:
        """Says that a replica is alive; worth `TTL_S` seconds.

        Returns:
            The measure by which it is to start anew now, and then it is withdrawn; mostly none.
        """
        ...

    async def withdraw(self, replica_id: str) -> None:
        """Says that a replica takes no more work."""
        ...

    async def live(self) -> Sequence[Announcement]:
        """The replicas that announced themselves lately."""
        ...

    async def report(self, pump: str, work: Mapping[str, Load], wishes: Wishes) -> None:
        """Says what a pump has ahead of each base model's engines, and what is wanted of them."""
        ...

    async def slowest(self, model: str) -> str:
        """The replica of a base model to start anew; empty where none may be now."""
        ...


class Directory:
    """Announcements with a time to live. Holds nothing that is not said again within a second."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, ttl_s: float = TTL_S) -> None:
        self._clock = clock
        self._ttl_s = ttl_s
        self._heard: dict[str, tuple[float, Announcement]] = {}
        self._work: dict[str, tuple[float, Mapping[str, Load], Wishes]] = {}
        self._leaves = Leaves()

    def announce(self, announcement: Announcement) -> str:
        """Notes that a replica is alive now; see `DirectoryClient`."""
        replica_id, model = announcement.replica_id, announcement.model
        self._heard[replica_id] = (self._clock(), announcement)
        for restart in self._restarts():
            if (restart.model, restart.replica_id) == (model, replica_id) and self._leaves.may_go(
                model, replica_id, self._of(model), self._clock()
            ):
                self.withdraw(replica_id)
                return restart.measure_id
        return ""

    def withdraw(self, replica_id: str) -> None:
        """Forgets a replica at once."""
        self._heard.pop(replica_id, None)

    def live(self) -> list[Announcement]:
        """The replicas heard within the time to live, by their ids."""
        horizon = self._clock() - self._ttl_s
        self._heard = {k: v for k, v in self._heard.items() if v[0] >= horizon}
        return [announcement for _, (_, announcement) in sorted(self._heard.items())]

    def report(self, pump: str, work: Mapping[str, Load], wishes: Wishes = NONE) -> None:
        """Notes what a pump has ahead of each base model's engines, and which measures it read."""
        self._work[pump] = (self._clock(), work, wishes)

    def outlook(self, model: str) -> Outlook:
        """What lies ahead of a base model's engines; not known where no pump said so lately."""
        reports = self._reports()
        if not reports:
            return Outlook(None)
        return Outlook(
            total(work.get(model, Load()) for work, _ in reports),
            max(wishes.floors.get(model, 0) for _, wishes in reports),
        )

    def slowest(self, model: str) -> str:
        """The replica of a base model to start anew; empty where none may be now."""
        live = self._of(model)
        if len(live) < 2 or self._leaves.busy(model, live, self._clock()):
            return ""
        # Where none is slow, the one with the most to do: the same one at every look.
        return max(live, key=lambda name: (live[name].seconds_per_token, live[name].load_tokens))

    def _of(self, model: str) -> dict[str, Announcement]:
        return {each.replica_id: each for each in self.live() if each.model == model}

    def _restarts(self) -> Sequence[Restart]:
        return [each for _, wishes in self._reports() for each in wishes.restarts]

    def _reports(self) -> Sequence[tuple[Mapping[str, Load], Wishes]]:
        horizon = self._clock() - self._ttl_s
        self._work = {pump: v for pump, v in self._work.items() if v[0] >= horizon}
        return [(work, wishes) for _, work, wishes in self._work.values()]
