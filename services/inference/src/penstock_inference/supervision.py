"""When an application that failed to start is deployed again. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping

__all__ = ["DeployError", "Supervision"]

FIRST_WAIT_S = 30.0
LONGEST_WAIT_S = 300.0


class DeployError(Exception):
    """There is nothing to serve with; the message says what failed."""


class Supervision:
    """Watches the applications; Serve itself gives up on one that never started.

    A model that cannot start is tried again, later and later, while the others serve. Without
    pumps, or where no model has ever started and all failed, there is nothing to wait for.

    Args:
        engines: The models' applications.
        pumps: The pumps' application.
    """

    def __init__(self, engines: Collection[str], pumps: str) -> None:
        self._engines = frozenset(engines)
        self._pumps = pumps
        self._wait_s = dict.fromkeys(engines, FIRST_WAIT_S)
        self._due: dict[str, float] = {}
        self._served = False

    def look(self, failed: Mapping[str, str], running: Collection[str], now_s: float) -> list[str]:
        """The applications to deploy again now.

        Args:
            failed: Why, by the names of those that failed to start.
            running: Those that run.
            now_s: A monotonic clock.

        Raises:
            DeployError: There is nothing to serve with.
        """
        for name in self._engines.intersection(running):
            self._served = True
            self._wait_s[name] = FIRST_WAIT_S
            self._due.pop(name, None)
        hopeless = not self._served and self._engines <= failed.keys()
        if hopeless or self._pumps in failed:
            raise DeployError("\n".join(f"{name}: {why}" for name, why in sorted(failed.items())))
        for name in failed:
            if name not in self._due:
                self._due[name] = now_s + self._wait_s[name]
        due = sorted(name for name in failed if self._due[name] <= now_s)
        for name in due:
            del self._due[name]
            self._wait_s[name] = min(2 * self._wait_s[name], LONGEST_WAIT_S)
        return due
