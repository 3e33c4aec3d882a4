"""The directory of engines as a Ray actor, found by its name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import ray

from penstock_inference.scaling.decision import Load
from penstock_inference.scaling.directory import ACTOR_NAME, Announcement, Directory, Wishes

__all__ = ["DirectoryActor", "DirectoryHandle"]


@ray.remote(num_cpus=0, max_restarts=-1)
class DirectoryActor(Directory):
    """The directory as a Ray actor; after a restart it is full again within a second."""


class DirectoryHandle:
    """The directory actor behind `DirectoryClient`."""

    def __init__(self) -> None:
        self._actor = DirectoryActor.options(  # type: ignore[attr-defined]
            name=ACTOR_NAME, namespace="penstock", get_if_exists=True, lifetime="detached"
        ).remote()

    async def announce(self, announcement: Announcement) -> str:
        """See `DirectoryClient`."""
        told: str = await self._actor.announce.remote(announcement)
        return told

    async def withdraw(self, replica_id: str) -> None:
        """See `DirectoryClient`."""
        await self._actor.withdraw.remote(replica_id)

    async def live(self) -> Sequence[Announcement]:
        """See `DirectoryClient`."""
        found: Sequence[Announcement] = await self._actor.live.remote()
        return found

    async def report(self, pump: str, work: Mapping[str, Load], wishes: Wishes) -> None:
        """See `DirectoryClient`."""
        await self._actor.report.remote(pump, work, wishes)

    async def slowest(self, model: str) -> str:
        """See `DirectoryClient`."""
        found: str = await self._actor.slowest.remote(model)
        return found
