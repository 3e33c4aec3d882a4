"""Turns: requests that share an ordering key run one after another, in their order. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

__all__ = ["Turns"]

T = TypeVar("T")


class Turns(Generic[T]):
    """Who has the turn of a key, and who waits for it."""

    def __init__(self) -> None:
        self._lines: dict[Hashable, deque[T]] = {}

    def __len__(self) -> int:
        return len(self._lines)

    def enter(self, key: Hashable, item: T) -> bool:
        """Joins the line of a key; True when the item has the turn at once."""
        line = self._lines.get(key)
        if line is None:
            self._lines[key] = deque((item,))
            return True
        line.append(item)
        return False

    def leave(self, key: Hashable, item: T) -> T | None:
        """Leaves the line, with the turn or without; returns who gets the turn by that."""
        line = self._lines[key]
        if line[0] is not item:
            line.remove(item)
            return None
        line.popleft()
        if line:
            return line[0]
        del self._lines[key]
        return None
