"""Workers killed, added and removed while they fold: the events of a sequential fold."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import random
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from penstock.topics import TOPICS
from tests.integration.drift_stream import (
    Script,
    assert_each_once,
    assert_same,
    events_of,
    sequential,
    set_policy,
    write_feedback,
    write_live,
    write_responses,
)
from tests.integration.drift_worker import Progress, end, said, start_worker, worker
from tests.integration.operator_place import Place, make_place

# `make test-drift-chaos` sets these higher.
RESPONSES = int(os.environ.get("DRIFT_TEST_RESPONSES", "10000"))
KILLS = int(os.environ.get("DRIFT_TEST_KILLS", "3"))
TASKS = int(os.environ.get("DRIFT_TEST_TASKS", "8"))
SEED = int(os.environ.get("DRIFT_TEST_SEED", "1"))
TAKEN_OVER = "state taken over"
PATIENCE_S = 600 + 120 * KILLS + RESPONSES // 20

pytestmark = [pytest.mark.integration, pytest.mark.timeout(2 * PATIENCE_S)]


@dataclasses.dataclass
class Figures:
    """What a run with kills came to.

    Attributes:
        responses: How many there were.
        kills: SIGKILLs of a living worker.
        at_work: Those that hit one that had drawn or judged something in its life.
        ended: How often a worker ended by itself, and was started again.
        events: On `drift`.
        seconds: From the first worker's start until all was judged.
    """

    responses: int
    kills: int = 0
    at_work: int = 0
    ended: int = 0
    events: int = 0
    seconds: float = 0


class Killer:
    """One worker, which is killed and started again.

    Args:
        place: Where it works.
        log: Of all its lives.
        progress: How far it is.
        figures: Counts kills.
    """

    def __init__(self, place: Place, log: Path, progress: Progress, figures: Figures) -> None:
        self._place, self._log = place, log
        self._progress, self._figures = progress, figures
        self._process: asyncio.subprocess.Process | None = None
        self._began = (0, 0)

    async def start(self) -> None:
        """Begins a life."""
        self._began = await self._come_to()
        self._process = await start_worker(self._place, self._log)

    async def kill(self) -> None:
        """Ends a life and begins the next one."""
        assert self._process is not None
        if self._process.returncode is None:
            self._figures.kills += 1
            self._figures.at_work += await self._has_worked()
        await end(self._process)
        await self.start()

    async def until(self, reached: Callable[[], Awaitable[bool]], *, at_work: bool) -> None:
        """Waits for something to be so; a worker that ends by itself is started again.

        Args:
            reached: What has to be so.
            at_work: Whether the life must have brought something too.
        """
        async with asyncio.timeout(PATIENCE_S):
            while not (await reached() and (not at_work or await self._has_worked())):
                await asyncio.sleep(0.05)
                if self._process is not None and self._process.returncode is not None:
                    self._figures.ended += 1
                    await self.start()

    async def stop(self) -> None:
        """Ends the last life."""
        if self._process is not None:
            await end(self._process)

    async def _has_worked(self) -> bool:
        drawn, judged_ms = await self._come_to()
        return drawn > self._began[0] or judged_ms > self._began[1]

    async def _come_to(self) -> tuple[int, int]:
        return await self._progress.drawn(), self._progress.judged_ms


async def killed(place: Place, log: Path, script: Script, seed: int) -> Figures:
    """Folds responses on a worker that is killed at seeded points of its progress.

    Some points are of what is drawn, some of what is judged. Raises where the events are not those
    of a sequential fold, or a response is not in `signals` exactly once.
    """
    figures = Figures(RESPONSES)
    await set_policy(place, baseline=200)
    await write_feedback(place, script.partitions)
    end_ms = await write_responses(place, script, RESPONSES)
    draw = random.Random(seed)
    began_s = time.monotonic()
    async with Progress.of(place) as progress:
        killer = Killer(place, log, progress, figures)
        try:
            await killer.start()
            for share in sorted(draw.uniform(0.02, 0.9) for _ in range(KILLS)):
                reached = _drawn if draw.random() < 0.5 else _judged
                await killer.until(partial(reached, progress, script, share), at_work=True)
                # Not always at the end of a transaction, nor of a save.
                await asyncio.sleep(draw.uniform(0, 0.5))
                await killer.kill()
            await killer.until(partial(_settled, progress, end_ms), at_work=False)
        finally:
            await killer.stop()
    figures.seconds = round(time.monotonic() - began_s, 1)
    undisturbed = await sequential(place, script.partitions)
    events = await events_of(place)
    assert_each_once(undisturbed, RESPONSES)
    assert_same(events, undisturbed.events)
    figures.events = len(events)
    return figures


async def _drawn(progress: Progress, _: Script, share: float) -> bool:
    # Two observations of each response, and ticks.
    return await progress.drawn() >= share * 2 * RESPONSES


async def _judged(progress: Progress, script: Script, share: float) -> bool:
    return progress.judged_ms >= script.time_ms(round(share * RESPONSES))


async def _settled(progress: Progress, end_ms: int) -> bool:
    return progress.settled(end_ms)


async def test_killed_at_seeded_points(kafka: Any, tmp_path: Path) -> None:
    # One task after the other changes, so that there is something to find all along.
    changes = {n: round(RESPONSES * (0.3 + 0.6 * n / TASKS)) for n in range(0, TASKS, 2)}
    place = await make_place(kafka.bootstrap)
    log = tmp_path / "drift.log"
    figures = await killed(place, log, Script(changes, tasks=TASKS, seed=SEED), SEED)
    sys.stdout.write(json.dumps(dataclasses.asdict(figures)) + "\n")
    # Every change is found, and resolved as silent when nothing comes any more.
    assert figures.events >= 2 * len(changes), log.read_text()[-4000:]
    assert figures.kills == figures.at_work == KILLS, log.read_text()[-4000:]


async def test_a_second_worker_takes_a_share_and_gives_it_back(kafka: Any, tmp_path: Path) -> None:
    changes: dict[int, int] = {}
    script = Script(changes, tasks=6, per_s=200)
    place = await make_place(kafka.bootstrap)
    await set_policy(place, tick_s=1, baseline=200)
    enough = asyncio.Event()
    writing = asyncio.create_task(write_live(place, script, enough))
    logs = [tmp_path / "first.log", tmp_path / "second.log"]

    def took_over(log: Path, after: int = 0) -> set[int]:
        """Partitions whose keys' states a worker has read, after so many readings."""
        topic = place.topic("drift_state")
        # One of the records is the fold's own progress.
        return {
            line["partition"]
            for line in said(log, TAKEN_OVER)[after:]
            if line["topic"] == topic and line["keys"] > 1
        }

    async def change(task: int) -> None:
        """From now on a task's answers are refusals, until that is found."""
        changes[task] = 0
        async with asyncio.timeout(240):
            while f"task=t{task}" not in {event.segment for event in await events_of(place)}:
                await asyncio.sleep(0.5)

    async with Progress.of(place) as progress, worker(place, logs[0]):
        # Three signals of each task and of all traffic have their baselines.
        await progress.until(lambda: sum(progress.armed.values()) == 3 * (script.tasks + 1))
        await progress.until(lambda: len(progress.kept) == script.partitions)
        await change(0)
        async with worker(place, logs[1]) as second:
            await progress.until(lambda: bool(took_over(logs[1])))
            # Its key and that of the next one lie in different partitions.
            await change(1)
            moved, before = took_over(logs[1]), len(said(logs[0], TAKEN_OVER))
            second.terminate()
            assert await asyncio.wait_for(second.wait(), 60) == 0, logs[1].read_text()[-4000:]
        await change(3)
        await progress.until(lambda: moved <= took_over(logs[0], before))
        enough.set()
        responses = await writing
        end_ms = time.time_ns() // 1_000_000
        await progress.until(lambda: progress.judged_ms > end_ms)
    undisturbed = await sequential(place, script.partitions)
    assert_each_once(undisturbed, responses)
    assert_same(await events_of(place), undisturbed.events)


def test_topics_of_state_are_compacted() -> None:
    compacted = {topic.name for topic in TOPICS if topic.compacted}
    assert {"drift_state", "judge_state", "policies"} <= compacted
