"""The watchdog: what is due and does not move is named, and nothing else is."""

from __future__ import annotations

from penstock_inference.watchdog import Look, PartitionLook, Stalled, Watch, consumer_looks


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


def test_a_consumer_is_watched_for_reading_and_committing() -> None:
    idle = PartitionLook(0, position=5, unread=0, flowing=True, ready=0, committed=5)
    full = PartitionLook(1, position=5, unread=9, flowing=False, ready=0, committed=0)
    stalled = PartitionLook(2, position=5, unread=9, flowing=True, ready=0, committed=5)
    stuck = PartitionLook(3, position=5, unread=0, flowing=True, ready=2, committed=3)
    watch = Watch(10)
    for second in range(11):
        found = watch.look(consumer_looks([idle, full, stalled, stuck]), float(second))
    assert {each.name for each in found} == {"reading of partition 2", "committing of partition 3"}
