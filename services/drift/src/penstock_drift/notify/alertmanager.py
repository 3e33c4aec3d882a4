"""Hands alerts on to Alertmanager, again and again until they are over.

Every worker may do so: Alertmanager takes equal labels for the same alert.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from typing import Any

from penstock.settings import SettingsError
from penstock.telemetry import logger
from penstock_drift import metrics
from penstock_drift.notify.payloads import payloads
from penstock_drift.views.feed import IncidentFeed

__all__ = ["Alertmanager", "Forwarder", "Unreachable", "addresses"]

log = logger(__name__)

POST_S = 10.0
MAX_BATCH = 100
# So many tellings may be lost before Alertmanager takes an alert to be over.
HOLD = 4
# Changes that come together are told together.
SETTLE_S = 1.0


class Unreachable(Exception):
    """An Alertmanager did not take what it was told."""


class Alertmanager:
    """One Alertmanager, by its v2 API.

    Args:
        address: `http://host:port`, with a path where it has one.
    """

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")

    async def post(self, alerts: Sequence[dict[str, Any]]) -> None:
        """Tells it; repeats do no harm.

        Raises:
            Unreachable: It did not take all of it.
        """
        for start in range(0, len(alerts), MAX_BATCH):
            await asyncio.to_thread(self._post, alerts[start : start + MAX_BATCH])

    def _post(self, alerts: Sequence[dict[str, Any]]) -> None:
        body = json.dumps(alerts).encode()
        try:
            request = urllib.request.Request(  # noqa: S310 - `addresses` lets http and https in only
                f"{self.address}/api/v2/alerts",
                data=body,
                headers={"Content-Type": "application/json"},
                method="POST",
            )
            with urllib.request.urlopen(request, timeout=POST_S) as answer:  # noqa: S310 - as above
                answer.read()
        except urllib.error.HTTPError as error:
            raise Unreachable(f"{self.address} answered {error.code}: {_said(error)}") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            # Whatever answers there may speak no HTTP, or break off; a port may be no number.
            raise Unreachable(f"{self.address} cannot be reached: {error!r}") from error


def _said(error: urllib.error.HTTPError) -> str:
    try:
        return error.read(500).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        return "without saying why"


class Forwarder:
    """Tells every Alertmanager what is open, at each change and every `repeat_s`.

    Args:
        feed: The incidents.
        targets: Each of a cluster's, as Alertmanager wants it.
        repeat_s: The longest time between two tellings.
        clock: The time now, UTC.
    """

    def __init__(
        self,
        feed: IncidentFeed,
        targets: Sequence[Alertmanager],
        *,
        repeat_s: float,
        clock: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
    ) -> None:
        self._feed = feed
        self._targets = targets
        self._repeat_s = repeat_s
        self._clock = clock

    async def run(self) -> None:
        """Tells until it is cancelled."""
        with self._feed.follow() as changes:
            while True:
                await self.tell()
                try:
                    async with asyncio.timeout(self._repeat_s):
                        await changes.take()
                        await asyncio.sleep(min(SETTLE_S, self._repeat_s / 2))
                except TimeoutError:
                    pass

    async def tell(self) -> None:
        """Tells once; who does not answer is told at the next time."""
        hold = dt.timedelta(seconds=HOLD * self._repeat_s)
        alerts = payloads(self._feed.book, self._clock(), hold)
        if not alerts:
            return
        results = await asyncio.gather(
            *(target.post(alerts) for target in self._targets), return_exceptions=True
        )
        for result in results:
            if isinstance(result, Unreachable):
                metrics.ALERTMANAGER_POSTS.labels("failed").inc()
                log.warning("alertmanager was not told", error=str(result), alerts=len(alerts))
            elif isinstance(result, BaseException):
                raise result
            else:
                metrics.ALERTMANAGER_POSTS.labels("taken").inc()


def addresses(urls: str) -> list[Alertmanager]:
    """The Alertmanagers of a setting: addresses separated by commas, none where it is empty.

    Raises:
        SettingsError: One is no address.
    """
    found = []
    for url in filter(None, (part.strip() for part in urls.split(","))):
        if not url.startswith(("http://", "https://")):
            raise SettingsError(
                f"PENSTOCK_DRIFT_ALERTMANAGER_URL: {url!r} is no address; write http://host:9093"
            )
        found.append(Alertmanager(url))
    return found
