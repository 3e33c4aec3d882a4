"""The watchdog: what is due and does not move is named, and nothing else is."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

from penstock.kafka.consumer import Standing
from penstock.kafka.ports import LogError
from penstock.kafka.watch import ConsumerWatch, StoodStill
from penstock.watchdog import Look, Stalled, Watch


def silent(watch: Watch, looks: list[tuple[float, Look]]) -> list[float]:
    """The moments at which something was found to stand still."""
    return [now_s for now_s, look in looks if watch.look({"it": look}, now_s)]


def test_what_is_due_and_does_not_move_is_found_after_the_limit() -> None:
    looks = [(float(s), Look(True, 7)) for s in range(40)]
    assert silent(Watch(30), looks) == [float(s) for s in range(30, 40)]


def test_a_step_forward_or_a_rest_begins_anew() -> None:
    moving = [(float(s), Look(True, s // 20)) for s in range(200)]
    assert silent(Watch(30), moving) == []
    resting = [(float(s), Look(s % 25 != 0, 7)) for s in range(200)]
    assert silent(Watch(30), resting) == []


def test_who_slept_itself_accuses_nobody() -> None:
    watch = Watch(30)
    looks = [(float(s), Look(True, 7)) for s in [*range(10), *range(500, 529)]]
    assert silent(watch, looks) == []
    assert watch.look({"it": Look(True, 7)}, 530.0) == [Stalled("it", 30.0)]


def test_what_is_lost_and_comes_back_begins_anew() -> None:
    watch = Watch(30)
    for second in range(29):
        watch.look({"it": Look(True, 7)}, float(second))
    assert watch.look({}, 29.0) == []
    for second in range(30, 59):
        assert watch.look({"it": Look(True, 7)}, float(second)) == []


def test_the_longest_silence_comes_first() -> None:
    watch = Watch(10)
    for second in range(20):
        names = {"early": Look(True, 0)} | ({"late": Look(True, 0)} if second > 5 else {})
        found = watch.look(names, float(second))
    assert [str(each) for each in found] == [
        "early has stood still for 19 s",
        "late has stood still for 13 s",
    ]


def standing(partition: int, **change: Any) -> Standing:
    """A partition that has been read and committed to its end, but for what a test changes."""
    idle = {
        "partition": partition,
        "position": 5,
        "read_to": 6,  # past a marker
        "unread": 0,
        "flowing": True,
        "held": 0,
        "open_from": 5,
        "ready": 0,
        "committed": 5,
        "halted": False,
    }
    return Standing(**{**idle, **change})


class Ends:
    """Every partition ends where it says, unless the broker is away."""

    def __init__(self, end: int) -> None:
        self.end = end
        self.away = False
        self.stopped = False

    async def read(self) -> Mapping[int, int]:
        if self.away:
            raise LogError("no broker")
        return dict.fromkeys(range(4), self.end)

    async def stop(self) -> None:
        self.stopped = True


async def looked(watch: ConsumerWatch, seconds: Iterable[int]) -> str:
    """What the watch said, if it said something."""
    try:
        for second in seconds:
            await watch.look(float(second))
    except StoodStill as error:
        return str(error)
    return ""


async def test_a_consumer_that_reads_or_commits_nothing_is_named() -> None:
    partitions = [
        standing(0, held=3),  # at engines: not the consumer's to hurry
        standing(1, read_to=2, flowing=False),  # full, or halted
        standing(2, read_to=2),
        standing(3, ready=1),
    ]
    said = await looked(ConsumerWatch(lambda: partitions, Ends(6), limit_s=60), range(0, 61, 5))
    assert "reading of partition 2 has stood still for 60 s" in said
    assert "committing of partition 3 has stood still for 60 s" in said
    assert "partition 0" not in said
    assert "partition 1" not in said


async def test_the_end_behind_markers_is_the_end() -> None:
    partitions = [standing(0)]
    assert await looked(ConsumerWatch(lambda: partitions, Ends(6)), range(0, 600, 5)) == ""


async def test_a_client_that_hears_nothing_does_not_hide_it() -> None:
    partitions = [standing(0, unread=0)]  # by its own account
    ends = Ends(7)
    assert "reading" in await looked(ConsumerWatch(lambda: partitions, ends), range(0, 100, 5))


async def test_while_the_broker_is_away_nothing_is_held_against_anybody() -> None:
    partitions = [standing(0)]
    ends = Ends(7)
    watch = ConsumerWatch(lambda: partitions, ends)
    assert await looked(watch, range(0, 50, 5)) == ""
    ends.away = True
    assert await looked(watch, range(50, 300, 5)) == ""
    ends.away = False
    assert await looked(watch, range(300, 355, 5)) == ""
    assert await looked(watch, range(355, 400, 5)) != ""


async def test_a_consumer_that_never_gets_its_partitions_is_found() -> None:
    settled = ConsumerWatch(list, Ends(6), settling=lambda: Look(due=False, mark=1))
    assert await looked(settled, range(0, 600, 5)) == ""
    again = iter(range(1000))
    trying = ConsumerWatch(list, Ends(6), settling=lambda: Look(due=True, mark=next(again)))
    assert await looked(trying, range(0, 600, 5)) == ""
    stuck = ConsumerWatch(list, Ends(6), settling=lambda: Look(due=True, mark=1))
    assert await looked(stuck, range(0, 600, 5)) == "getting partitions has stood still for 60 s"


async def test_a_watch_that_ends_lets_go_of_its_connections() -> None:
    ends = Ends(6)
    watching = asyncio.create_task(ConsumerWatch(list, ends).run())
    await asyncio.sleep(0)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    assert ends.stopped
