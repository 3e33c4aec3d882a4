"""Workers of drift as processes, and how far they have come by what they write."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from penstock.codec import decode
from penstock.kafka.ends import LogEnds
from penstock.kafka.reader import LogReader, Start
from penstock.records import Record
from penstock.v1 import drift_pb2
from tests.integration.operator_place import Place

DAY_MS = 86_400_000
PROGRESS = b"//progress"


@asynccontextmanager
async def worker(
    place: Place, log: Path, **settings: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A worker as it runs; killed when the context ends, if it is still there."""
    process = await start_worker(place, log, **settings)
    try:
        yield process
    finally:
        await end(process)


async def start_worker(place: Place, log: Path, **settings: str) -> asyncio.subprocess.Process:
    """Starts a worker; it appends to its log."""
    env = os.environ | {
        "PENSTOCK_KAFKA_BOOTSTRAP": place.bootstrap,
        "PENSTOCK_TOPIC_PREFIX": place.prefix,
        "PENSTOCK_DRIFT_METRICS_PORT": "0",
        "PENSTOCK_DRIFT_GRPC_PORT": "0",
        "PENSTOCK_DRIFT_SAVE_S": "2",
        **settings,
    }
    with log.open("ab") as file:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "penstock_drift", env=env, stderr=file
        )


async def end(process: asyncio.subprocess.Process) -> None:
    """Kills a process with SIGKILL if it is there, and waits for its end."""
    if process.returncode is None:
        process.kill()
    await process.wait()


def said(log: Path, message: str) -> list[dict[str, Any]]:
    """The lines of a worker's log with that message."""
    lines = log.read_text().splitlines() if log.exists() else []
    found = [json.loads(line) for line in lines if line.startswith("{")]
    return [line for line in found if line.get("message") == message]


class Progress:
    """How far folds and judge are, in event time, from what they wrote.

    Args:
        place: Where they write.

    Attributes:
        folded_ms: By partition of `signals`.
        armed: By partition, signals that have their baseline.
        judged_ms: Up to when everything is judged.
        kept: Partitions of `signals` with keys whose state is kept.
    """

    def __init__(self, place: Place) -> None:
        self.folded_ms: dict[int, int] = {}
        self.armed: dict[int, int] = {}
        self.judged_ms = 0
        self.kept: set[int] = set()
        self._place = place
        self._partitions = 1
        self._ends = LogEnds(place.bootstrap, place.topic("signals"))

    @classmethod
    @asynccontextmanager
    async def of(cls, place: Place) -> AsyncIterator[Progress]:
        """Follows what is written while the context lasts."""
        progress = cls(place)
        takes = {
            "evidence": progress._take_evidence,
            "drift_state": progress._take_fold,
            "judge_state": progress._take_judge,
        }
        tasks = [asyncio.create_task(progress._follow(*each)) for each in takes.items()]
        try:
            yield progress
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await progress._ends.stop()

    async def drawn(self) -> int:
        """How much there is of `signals`, ticks and markers included."""
        return sum((await self._ends.read()).values())

    def settled(self, until_ms: int) -> bool:
        """Whether all is judged that becomes of what happened up to an instant.

        When sources are idle ticks go by the clock: so what is open then has ended as silent.
        """
        after_ms = until_ms + 2 * DAY_MS
        heard = len(self.folded_ms) == self._partitions
        return heard and min(*self.folded_ms.values(), self.judged_ms) > after_ms

    async def until(self, reached: Callable[[], bool], timeout_s: float = 240) -> None:
        """Waits for something to be so."""
        async with asyncio.timeout(timeout_s):
            while not reached():
                await asyncio.sleep(0.1)

    async def _follow(self, name: str, take: Callable[[Record], None]) -> None:
        place = self._place
        await LogReader(place.bootstrap, place.topic(name), start=Start.BEGINNING).run(take)

    def _take_evidence(self, record: Record) -> None:
        told = decode(record, drift_pb2.Evidence)
        self._partitions = told.partitions
        self.armed[told.partition] = told.armed
        # After a restart some comes again.
        newest = max(told.until.ToMilliseconds(), self.folded_ms.get(told.partition, 0))
        self.folded_ms[told.partition] = newest

    def _take_fold(self, record: Record) -> None:
        if record.key != PROGRESS:
            self.kept.add(record.partition.number)

    def _take_judge(self, record: Record) -> None:
        if record.key == PROGRESS and record.value:
            self.judged_ms = int(json.loads(record.value)["judged_ms"])
