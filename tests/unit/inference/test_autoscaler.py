"""Serve's autoscaler: asks the directory without waiting, and decides nothing on what is old."""

from __future__ import annotations

import concurrent.futures
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from penstock_inference.scaling import autoscaler
from penstock_inference.scaling.autoscaler import WorkPolicy, autoscaling_config
from penstock_inference.scaling.decision import Load, Outlook, Targets
from penstock_inference.scaling.directory import Directory, Wishes


@dataclasses.dataclass
class Context:
    target_num_replicas: int = 1
    capacity_adjusted_min_replicas: int = 1
    capacity_adjusted_max_replicas: int = 4


class Actor:
    """The directory as Ray would hand it out: answers when it is told to."""

    def __init__(self) -> None:
        self.asked: list[concurrent.futures.Future[Outlook]] = []
        self.outlook = self

    def remote(self, model: str) -> Actor:
        assert model == "triage"
        self.asked.append(concurrent.futures.Future())
        return self

    def future(self) -> concurrent.futures.Future[Outlook]:
        return self.asked[-1]


class Controller:
    """Calls the policy ten times a second on a clock of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.actor, self.context, self.now_s = Actor(), Context(), 1000.0
        self.found = 0
        monkeypatch.setattr(autoscaler.time, "monotonic", lambda: self.now_s)
        monkeypatch.setattr(autoscaler.ray, "get_actor", self._get_actor)
        targets = {"requests": 10, "tokens": 5_120, "up_after_s": 5, "down_after_s": 60}
        self.policy = WorkPolicy("triage", **targets)

    def _get_actor(self, *_: Any, **__: Any) -> Actor:
        self.found += 1
        return self.actor

    def run(self, seconds: float, answer: Callable[[], Load | None] | None, floor: int = 0) -> int:
        for _ in range(round(seconds * 10)):
            self.now_s += 0.1
            if answer is not None and self.actor.asked and not self.actor.asked[-1].done():
                self.actor.asked[-1].set_result(Outlook(answer(), floor))
            self.context.target_num_replicas, state = self.policy(self.context)
            assert state == {}
        return self.context.target_num_replicas


@pytest.fixture
def controller(monkeypatch: pytest.MonkeyPatch) -> Controller:
    return Controller(monkeypatch)


def test_follows_the_work_ahead(controller: Controller) -> None:
    assert controller.run(4, lambda: Load(25, 100)) == 1
    assert controller.run(3, lambda: Load(25, 100)) == 3
    assert controller.run(59, lambda: Load()) == 3
    assert controller.run(5, lambda: Load()) == 1
    assert len(controller.actor.asked) < 80  # once a second
    assert controller.found == 1


def test_keeps_the_count_while_nothing_is_known(controller: Controller) -> None:
    controller.run(10, lambda: Load(25, 100))
    assert controller.run(300, None) == 3
    assert controller.run(300, lambda: None) == 3


def test_a_floor_is_kept_at_once_and_for_as_long_as_it_stands(controller: Controller) -> None:
    assert controller.run(2, lambda: Load(), floor=3) == 3
    assert controller.run(300, lambda: Load(), floor=3) == 3
    # More work than that still counts, and nothing goes beyond the maximum.
    assert controller.run(10, lambda: Load(35, 100), floor=3) == 4
    assert controller.run(300, lambda: Load(), floor=9) == 4
    # When it is over, engines go as they would without it.
    assert controller.run(59, lambda: Load()) == 4
    assert controller.run(10, lambda: Load()) == 1


def test_a_floor_that_is_not_known_any_more_changes_nothing(controller: Controller) -> None:
    controller.run(2, lambda: Load(), floor=3)
    assert controller.run(300, None) == 3
    assert controller.run(300, lambda: None, floor=2) == 3


def test_asks_anew_where_the_actor_does_not_answer_or_fails(controller: Controller) -> None:
    controller.run(30, None)
    assert 5 <= len(controller.actor.asked) <= 7  # each is given five seconds
    controller.actor.asked[-1].set_exception(RuntimeError("the actor died"))
    controller.run(2, None)
    assert controller.found == 2
    assert controller.run(10, lambda: Load(25, 100)) == 3


@pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20")  # Ray's own
def test_serve_takes_the_configuration_and_makes_the_policy() -> None:
    from ray.serve.config import AutoscalingConfig

    targets = Targets(8, 4_096, up_after_s=1)
    made = AutoscalingConfig(**autoscaling_config("triage", minimum=1, maximum=3, targets=targets))
    policy = made.policy.get_policy()(**made.policy.policy_kwargs)
    assert policy._targets == targets
    assert (made.min_replicas, made.max_replicas) == (1, 3)


def test_the_directory_adds_up_what_live_pumps_report() -> None:
    now = [0.0]
    directory = Directory(clock=lambda: now[0], ttl_s=5)
    assert directory.outlook("triage") == Outlook(None)
    directory.report("one", {"triage": Load(3, 30), "other": Load(1, 1)}, Wishes({"triage": 2}))
    now[0] = 3.0
    directory.report("two", {"triage": Load(4, 40)})
    assert directory.outlook("triage") == Outlook(Load(7, 70), floor=2)
    assert directory.outlook("unknown") == Outlook(Load())
    now[0] = 6.0
    assert directory.outlook("triage") == Outlook(Load(4, 40))
    now[0] = 9.0
    assert directory.outlook("triage") == Outlook(None)
