"""Shows the registry elsewhere: each version that changed is put there again, until it has been.

SQL is the truth. A mirror that is away holds nothing up and misses nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from penstock.errors import Unavailable
from penstock.telemetry import logger
from penstock_retrain.jobs.states import Job
from penstock_retrain.jobs.store import JobStore
from penstock_retrain.registry.store import Registry
from penstock_retrain.registry.versions import Version

__all__ = ["Mirror", "MirrorError", "Mirroring"]

log = logger(__name__)

POLL_S = 5.0
RETRY_S = 30.0


class MirrorError(Exception):
    """The mirror could not be written; it is tried again."""


class Mirror(Protocol):
    """Another registry that people look at."""

    def put(self, version: Version, aliases: Sequence[str], job: Job) -> None:
        """Shows a version as it is now. Idempotent; looks up by the job's id before it makes one.

        Blocks: called in a thread.

        Raises:
            MirrorError: It could not.
        """
        ...


class Mirroring:
    """Keeps a mirror up with the registry.

    Args:
        registry: The truth.
        jobs: The jobs that made the versions.
        mirror: What is written.
    """

    def __init__(self, registry: Registry, jobs: JobStore, mirror: Mirror) -> None:
        self._registry = registry
        self._jobs = jobs
        self._mirror = mirror
        # Versions that could not be, by name: their turn comes after the others'.
        self._failed: set[str] = set()

    async def run(self) -> None:
        """Mirrors until cancelled."""
        while True:
            wait_s = POLL_S
            try:
                await asyncio.to_thread(self.step)
            except (MirrorError, Unavailable) as error:
                log.warning("versions wait to be mirrored", error=str(error))
                wait_s = RETRY_S
            await asyncio.sleep(wait_s)

    def step(self) -> int:
        """Mirrors what changed; returns how many versions. Blocks.

        Raises:
            MirrorError: One could not be; it waits, and those after it until the next step.
        """
        done = 0
        found = self._registry.unmirrored()
        for version, aliases in sorted(found, key=lambda each: each[0].name in self._failed):
            names = sorted(name for name, number in aliases.items() if number == version.version)
            try:
                self._mirror.put(version, names, self._jobs.get(version.job_id))
            except MirrorError:
                self._failed.add(version.name)
                raise
            self._failed.discard(version.name)
            self._registry.mirrored(version)
            done += 1
        return done
