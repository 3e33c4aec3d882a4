"""Which adapter a variant answered through, by version of its route. Pure."""

from __future__ import annotations

import bisect
from collections.abc import Iterable

__all__ = ["Adapters"]

# Changes that are kept; the oldest go first.
MAX_CHANGES = 8


class Adapters:
    """One key's adapters: each version of the route has that of the one before, or another.

    Responses come by event time, so that versions hardly ever fall; one that comes late all the
    same is put right by the next response.

    Args:
        changes: Of a state: the versions at which another adapter came, with it, rising.
    """

    __slots__ = ("_adapters", "_newest", "_versions")

    def __init__(self, changes: Iterable[tuple[int, str]] = ()) -> None:
        self._versions: list[int] = []
        self._adapters: list[str] = []
        for version, adapter in changes:
            self._versions.append(version)
            self._adapters.append(adapter)
        self._newest: tuple[int, str] | None = None

    def note(self, version: int, adapter: str | None) -> None:
        """Takes in what a response says: the later word on a version counts.

        Args:
            version: The route's; 0 where it is not known, which says nothing.
            adapter: Empty for the base model alone; None where it is not known, the same.
        """
        if adapter is None or not version or (version, adapter) == self._newest:
            return
        self._newest = (version, adapter)
        versions, adapters = self._versions, self._adapters
        place = bisect.bisect_right(versions, version)
        if place and adapters[place - 1] == adapter:
            return
        if place and versions[place - 1] == version:
            place -= 1
            adapters[place] = adapter
            if place and adapters[place - 1] == adapter:
                del versions[place], adapters[place]
                place -= 1
        else:
            versions.insert(place, version)
            adapters.insert(place, adapter)
        if place + 1 < len(adapters) and adapters[place + 1] == adapter:
            # It came earlier than was known.
            del versions[place + 1], adapters[place + 1]
        del versions[:-MAX_CHANGES], adapters[:-MAX_CHANGES]

    def at(self, version: int) -> str | None:
        """The adapter of a version of the route; None where it is not known."""
        place = bisect.bisect_right(self._versions, version)
        return self._adapters[place - 1] if version and place else None

    def changes(self) -> tuple[tuple[int, str], ...]:
        """All that has to be kept."""
        return tuple(zip(self._versions, self._adapters, strict=True))
