"""Which variants count as ready, when they are probed, and what that makes of the whole."""

from __future__ import annotations

import datetime as dt

import pytest

from penstock.v1 import route_pb2
from penstock_ingest.health.board import Board, Key, Policy

T0 = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
POLICY = Policy(interval_s=30, failures=3, patience_s=600)
BASE, OTHER = Key("a", "base"), Key("a", "other")


def at(second: float) -> dt.datetime:
    return T0 + dt.timedelta(seconds=second)


def route(
    model: str = "a", version: int = 1, **stages: tuple[route_pb2.Stage.ValueType, int]
) -> route_pb2.Route:
    made = route_pb2.Route(model=model, version=version)
    for name, (stage, weight) in (stages or {"base": (route_pb2.STAGE_CHAMPION, 1)}).items():
        made.variants.add(name=name, base_model="m", stage=stage, weight=weight)
    return made


def board(*routes: route_pb2.Route, policy: Policy = POLICY) -> Board:
    made = Board(policy)
    made.follow(routes or [route()], 0.0)
    return made


def fail(made: Board, key: Key, now_s: float) -> None:
    made.due(now_s)
    made.failed(key, "no reply", at(now_s), now_s)


def answer(made: Board, key: Key, now_s: float) -> None:
    made.due(now_s)
    made.answered(key, at(now_s), now_s)


def test_a_variant_is_due_at_once_then_every_interval() -> None:
    made = board()
    assert made.due(0) == [BASE]
    assert made.due(0) == []  # it is under way
    made.answered(BASE, at(1), 1)
    assert made.due(30.9) == []
    assert made.due(31) == [BASE]


def test_a_new_version_of_the_route_is_probed_at_once_whatever_is_under_way() -> None:
    made = board()
    answer(made, BASE, 0)
    assert made.follow([route(version=2)], 5) == []
    assert made.due(5) == [BASE]
    made.follow([route(version=3)], 6)
    made.answered(BASE, at(7), 7)
    assert made.due(7) == [BASE]
    assert made.models["a"].route_version == 3


def test_retries_back_off_once_a_model_has_answered() -> None:
    made = board()
    answer(made, BASE, 0)
    now, waits = 30.0, []
    for _ in range(8):
        fail(made, BASE, now)
        later = made.models["a"].variants["base"].due_s
        waits.append(later - now)
        now = later
    assert waits == [1, 2, 4, 8, 16, 30, 30, 30]
    fresh = board()
    for second in range(5):
        fail(fresh, BASE, second)
    assert fresh.models["a"].variants["base"].due_s == 5  # it is loading: no time is lost


def test_not_ready_before_the_first_answer_and_after_three_failures() -> None:
    made = board()
    assert made.not_ready_because(0) == "no answer from a"
    answer(made, BASE, 10)
    assert made.not_ready_because(10) == ""
    for second in (40, 41):
        fail(made, BASE, second)
    assert (made.not_ready_because(41), made.unready(41)) == ("", [])
    fail(made, BASE, 43)
    assert (made.not_ready_because(43), made.unready(43)) == ("no answer from a", ["a"])
    assert made.models["a"].errors == "base: no reply"
    answer(made, BASE, 50)
    assert (made.not_ready_because(50), made.unready(50)) == ("", [])


def test_one_variant_is_enough_but_not_a_shadow() -> None:
    made = board(
        route(
            base=(route_pb2.STAGE_CHAMPION, 9),
            other=(route_pb2.STAGE_CANDIDATE, 1),
            shade=(route_pb2.STAGE_SHADOW, 10),
            idle=(route_pb2.STAGE_CANDIDATE, 0),
        )
    )
    assert made.due(0) == [BASE, OTHER, Key("a", "shade")]
    answer(made, Key("a", "shade"), 0)
    assert made.not_ready_because(0) == "no answer from a"
    answer(made, OTHER, 0)
    assert made.not_ready_because(0) == ""
    assert made.models["a"].errors == "base: it has not answered yet"


def test_at_first_every_model_is_waited_for_later_one_that_answers_is_enough() -> None:
    made = board(route("a"), route("b"))
    answer(made, BASE, 5)
    assert made.not_ready_because(599) == "no answer from b"
    assert made.not_ready_because(600) == ""
    assert (made.unready(599), made.unready(600)) == ([], ["b"])


def test_a_model_that_is_added_or_fails_does_not_take_the_others_with_it() -> None:
    made = board()
    answer(made, BASE, 5)
    made.follow([route("a"), route("b")], 20)
    assert made.not_ready_because(20) == ""
    answer(made, Key("b", "base"), 30)
    for second in range(40, 43):
        fail(made, BASE, second)
    assert (made.not_ready_because(43), made.unready(43)) == ("", ["a"])
    for second in range(50, 53):
        fail(made, Key("b", "base"), second)
    assert made.not_ready_because(53) == "no answer from a, b"


def test_a_late_probe_says_nothing_against_a_variant_that_answers_others() -> None:
    made = board()
    answer(made, BASE, 0)
    for start in (30, 60, 90, 120):
        made.due(start)
        made.seen(BASE, at(start + 5))
        made.failed(BASE, "deadline_exceeded", at(start), start + 12)
    assert made.not_ready_because(200) == ""
    variant = made.models["a"].variants["base"]
    assert (variant.failures, variant.last_error) == (0, "deadline_exceeded")
    for start in (160, 170, 180):
        fail(made, BASE, start)
    assert made.not_ready_because(200) == "no answer from a"


def test_a_variant_that_answers_a_backlog_is_ready_though_no_probe_came_through() -> None:
    made = board()
    made.due(0)
    made.seen(BASE, at(3))
    assert made.not_ready_because(3) == "no answer from a"
    made.failed(BASE, "deadline_exceeded", at(0), 12)
    assert made.not_ready_because(12) == ""


def test_what_an_earlier_instance_saw_does_not_count() -> None:
    made = board()
    made.seen(BASE, at(-60))  # the log is read from an hour ago
    fail(made, BASE, 0)
    assert made.not_ready_because(1) == "no answer from a"


@pytest.mark.parametrize("routes", [[], [route(other=(route_pb2.STAGE_CHAMPION, 1), version=2)]])
def test_what_left_its_route_is_named_once_and_forgotten(routes: list[route_pb2.Route]) -> None:
    made = board()
    made.due(0)
    assert made.follow(routes, 1) == [BASE]
    assert made.follow(routes, 2) == []
    made.answered(BASE, at(3), 3)
    made.failed(BASE, "late", at(3), 3)
    made.seen(BASE, at(3))
    assert BASE not in made.due(100)
