"""Waits a moment for what another reader of the log knows already."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

__all__ = ["settled"]

# How long a record may take to be read back from the log.
SETTLE_S = 0.5
LOOK_S = 0.02

T = TypeVar("T")


async def settled(look: Callable[[], T | None]) -> T | None:
    """What `look` gives, asked again for half a second while it gives None."""
    loop = asyncio.get_running_loop()
    give_up = loop.time() + SETTLE_S
    while True:
        found = look()
        if found is not None or loop.time() >= give_up:
            return found
        await asyncio.sleep(LOOK_S)
