"""Keeps an engine's adapters as the routes want them, from its start on."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable, Collection, Mapping, Sequence

from penstock.telemetry import logger
from penstock_inference import metrics
from penstock_inference.engines.errors import AdapterUnusable, EngineLost
from penstock_inference.engines.generation import Adapter, AdapterHost

__all__ = ["AdapterKeeper", "plan"]

log = logger(__name__)

INTERVAL_S = 0.25
RETRY_S = 1.0  # doubled with each failure
RETRY_MAX_S = 60.0


def plan(
    desired: Collection[str], loaded: Collection[str], in_use: Collection[str]
) -> tuple[list[str], list[str]]:
    """What to load and what to unload, each in the order of names.

    What is in use stays, whether it is desired or not: an answer is being given through it.
    """
    load = sorted(set(desired) - set(loaded))
    unload = sorted(set(loaded) - set(desired) - set(in_use))
    return load, unload


@dataclasses.dataclass(frozen=True, slots=True)
class _Failure:
    reason: str
    count: int
    retry_at: float


class AdapterKeeper:
    """Loads what routes name and unloads what they no longer name, one adapter at a time.

    What is wanted is applied again for as long as it runs: a replica that starts loads everything,
    and an adapter that could not be loaded is tried again, more and more seldom.

    Args:
        host: The engine.
        find: The adapter of a name, verified; called in a thread.
        desired: Names of the adapters that the routes want on this engine's base model.
        in_use: Names of the adapters that work is under way for.
        idle_s: How long an adapter must have been neither before it is unloaded.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        host: AdapterHost,
        find: Callable[[str], Adapter],
        *,
        desired: Callable[[], Collection[str]],
        in_use: Callable[[], Collection[str]],
        idle_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._host = host
        self._find = find
        self._desired = desired
        self._in_use = in_use
        self._idle_s = idle_s
        self._clock = clock
        self._needed_at: dict[str, float] = {}
        self._failures: dict[str, _Failure] = {}

    @property
    def loaded(self) -> Sequence[str]:
        """What work may be sent for, as the engine says itself."""
        return sorted(self._host.adapters)

    @property
    def failures(self) -> Mapping[str, str]:
        """Why the adapters that are wanted and not loaded are not."""
        return {name: failure.reason for name, failure in self._failures.items()}

    async def run(self) -> None:
        """Keeps at it until it is cancelled, or the engine is lost."""
        while True:
            try:
                await self.step()
            except EngineLost as error:
                log.error("adapters are kept no more: the engine is lost", reason=str(error))
                return
            await asyncio.sleep(INTERVAL_S)

    async def step(self) -> None:
        """Does once what there is to do.

        Raises:
            EngineLost: The engine is gone.
        """
        now = self._clock()
        desired = set(self._desired())
        for name in desired.union(self._in_use()):
            self._needed_at[name] = now
        recent = {n for n, at in self._needed_at.items() if now - at < self._idle_s}
        self._needed_at = {n: at for n, at in self._needed_at.items() if n in recent}
        self._failures = {n: f for n, f in self._failures.items() if n in desired}
        load, unload = plan(desired, self._host.adapters, recent.union(self._in_use()))
        # First what makes room.
        for name in unload:
            await self._host.unload_adapter(name)
            log.info("adapter unloaded", adapter=name)
        for name in load:
            if name not in self._failures or self._failures[name].retry_at <= now:
                await self._load(name)
        metrics.ADAPTERS_LOADED.set(len(self._host.adapters))

    async def _load(self, name: str) -> None:
        began = time.monotonic()
        try:
            adapter = await asyncio.to_thread(self._find, name)
            await self._host.load_adapter(adapter)
        except EngineLost:
            raise
        except AdapterUnusable as error:
            self._failed(name, str(error))
        except Exception as error:
            log.exception("adapter not loaded", adapter=name)
            self._failed(name, f"unforeseen: {type(error).__name__}")
        else:
            took_s = time.monotonic() - began
            self._failures.pop(name, None)
            metrics.ADAPTER_LOAD_SECONDS.observe(took_s)
            log.info("adapter loaded", adapter=name, digest=adapter.digest, took_s=round(took_s, 3))

    def _failed(self, name: str, reason: str) -> None:
        before = self._failures.get(name)
        count = before.count + 1 if before else 1
        wait_s = min(RETRY_MAX_S, RETRY_S * 2.0 ** min(count - 1, 10))
        self._failures[name] = _Failure(reason, count, self._clock() + wait_s)
        metrics.ADAPTER_FAILURES.inc()
        if before is None or before.reason != reason:
            log.error("adapter not loaded", adapter=name, reason=reason, retry_s=wait_s)
