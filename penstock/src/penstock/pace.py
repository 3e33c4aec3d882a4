"""Keeps turns apart, so that what comes one by one goes together."""

from __future__ import annotations

import asyncio

__all__ = ["Pace"]


class Pace:
    """Lets one turn begin no sooner than an interval after the last; after a pause at once.

    Args:
        interval_s: The interval.
    """

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._last_s = -interval_s

    async def turn(self) -> None:
        """Returns when the next turn may begin; at once if the last is long ago."""
        loop = asyncio.get_running_loop()
        wait_s = self._last_s + self._interval_s - loop.time()
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        self._last_s = loop.time()
