"""Which variants answer, and whether that makes this instance ready. Pure.

A variant is judged by probes: synthetic requests that go the whole way, through Kafka, a pump and
an engine. What real requests show counts as well: a probe that is late because a backlog lies
before it says nothing against a variant that answers the backlog.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from penstock.v1 import route_pb2

__all__ = ["Board", "Key", "ModelHealth", "Policy", "VariantHealth"]

_SERVING = (route_pb2.STAGE_CHAMPION, route_pb2.STAGE_CANDIDATE)
FIRST_RETRY_S = 1.0


class Key(NamedTuple):
    """A variant of a model."""

    model: str
    variant: str


@dataclasses.dataclass(frozen=True, slots=True)
class Policy:
    """When variants are probed and what their answers mean.

    Attributes:
        interval_s: Between probes of a variant that answers.
        failures: Probes in a row without an answer that make a variant not ready.
        patience_s: How long, at the start, every model is waited for; afterwards one that
            answers is enough, so that a model that stays away does not take the others with it.
    """

    interval_s: float = 30.0
    failures: int = 3
    patience_s: float = 600.0


@dataclasses.dataclass(slots=True)
class VariantHealth:
    """What is known of one variant.

    Attributes:
        stage: As the route names it.
        serving: Whether clients get its answers: a shadow's are never a reason to be ready.
        ready: Whether its last probes were answered.
        failures: Probes in a row that were not.
        last_success: When it last answered anything, UTC.
        last_error: Why the last probe that failed did.
        due_s: When it is to be probed next, on the prober's clock; never, while a probe is out
            and its route stays as it is.
        under_way: Whether a probe is out.
    """

    stage: str
    serving: bool
    ready: bool = False
    failures: int = 0
    last_success: dt.datetime | None = None
    last_error: str = ""
    due_s: float = 0.0
    under_way: bool = False


@dataclasses.dataclass(slots=True)
class ModelHealth:
    """What is known of one model.

    Attributes:
        route_version: The version of its route that is probed.
        since_s: Since when it is routed here, on the prober's clock.
        was_ready: Whether it has ever been ready here.
        variants: By name.
    """

    route_version: int
    since_s: float
    was_ready: bool = False
    variants: dict[str, VariantHealth] = dataclasses.field(default_factory=dict)

    @property
    def ready(self) -> bool:
        """Whether at least one variant whose answers clients get answers."""
        return any(variant.ready for variant in self.variants.values() if variant.serving)

    @property
    def errors(self) -> str:
        """What the variants that do not answer said last."""
        failing = {
            name: variant.last_error or "it has not answered yet"
            for name, variant in sorted(self.variants.items())
            if variant.serving and not variant.ready
        }
        return "; ".join(f"{name}: {error}" for name, error in failing.items())


class Board:
    """Everything that is known of the models and their variants.

    Args:
        policy: When to probe and what it means.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._models: dict[str, ModelHealth] = {}
        self._started_s: float | None = None
        self._complete = False  # whether every model has answered since the start

    @property
    def models(self) -> Mapping[str, ModelHealth]:
        """The models by name."""
        return self._models

    def follow(self, routes: Iterable[route_pb2.Route], now_s: float) -> list[Key]:
        """Takes the routes in; variants of a new version are due at once. Returns what left."""
        if self._started_s is None:
            self._started_s = now_s
        before = set(self._keys())
        models = {}
        for route in routes:
            model = self._models.get(route.model)
            if model is None:
                model = ModelHealth(route_version=0, since_s=now_s)
            if model.route_version != route.version:
                model.route_version = route.version
                model.variants = _variants(route, model.variants, now_s)
            models[route.model] = model
        self._models = models
        return sorted(before - set(self._keys()))

    def due(self, now_s: float) -> list[Key]:
        """The variants to probe now; each counts as being probed until it is said how it went."""
        found = []
        for key in self._keys():
            variant = self._models[key.model].variants[key.variant]
            if not variant.under_way and variant.due_s <= now_s:
                variant.under_way = True
                variant.due_s = math.inf
                found.append(key)
        return found

    def answered(self, key: Key, at: dt.datetime, now_s: float) -> None:
        """A probe was answered."""
        variant = self._find(key)
        if variant is None:
            return
        variant.under_way = False
        variant.last_error = ""
        self._succeed(key, variant, at)
        self._next(variant, now_s + self._policy.interval_s)

    def failed(self, key: Key, error: str, sent_at: dt.datetime, now_s: float) -> None:
        """A probe was not answered, or not with an answer."""
        variant = self._find(key)
        if variant is None:
            return
        variant.under_way = False
        variant.last_error = error
        if variant.last_success is not None and variant.last_success >= sent_at:
            # It answers others meanwhile: the probe only lay behind them.
            self._succeed(key, variant, variant.last_success)
            self._next(variant, now_s + self._policy.interval_s)
            return
        variant.failures += 1
        if variant.failures >= self._policy.failures:
            variant.ready = False
        wait_s = FIRST_RETRY_S
        if self._models[key.model].was_ready:
            # Before its first answer a model is loading, and the next probe waits for it.
            wait_s = min(FIRST_RETRY_S * 2 ** (variant.failures - 1), self._policy.interval_s)
        self._next(variant, now_s + wait_s)

    def seen(self, key: Key, at: dt.datetime) -> None:
        """A real request was answered by a variant."""
        variant = self._find(key)
        if variant is not None and (variant.last_success is None or variant.last_success < at):
            variant.last_success = at
            if variant.ready:
                variant.failures = 0

    def unready(self, now_s: float) -> list[str]:
        """The models of which no variant answers, once that is more than a slow start."""
        return [
            name
            for name, model in sorted(self._models.items())
            if not model.ready
            and (model.was_ready or now_s - model.since_s >= self._policy.patience_s)
        ]

    def not_ready_because(self, now_s: float) -> str:
        """Why this instance should not get requests; empty where it should."""
        waiting = [name for name, model in sorted(self._models.items()) if not model.ready]
        if not waiting:
            return ""
        if len(waiting) == len(self._models) or self._patient(now_s):
            return "no answer from " + ", ".join(waiting)
        return ""

    def _patient(self, now_s: float) -> bool:
        # At first every model is waited for, later on the last one that answers is enough.
        return (
            not self._complete
            and self._started_s is not None
            and now_s - self._started_s < self._policy.patience_s
        )

    def _succeed(self, key: Key, variant: VariantHealth, at: dt.datetime) -> None:
        variant.ready = True
        variant.failures = 0
        variant.last_success = max(at, variant.last_success or at)
        if variant.serving:
            self._models[key.model].was_ready = True
        if all(model.was_ready for model in self._models.values()):
            self._complete = True

    @staticmethod
    def _next(variant: VariantHealth, due_s: float) -> None:
        if variant.due_s == math.inf:  # else its route changed meanwhile, and it is due already
            variant.due_s = due_s

    def _find(self, key: Key) -> VariantHealth | None:
        model = self._models.get(key.model)
        return model.variants.get(key.variant) if model else None

    def _keys(self) -> list[Key]:
        return [
            Key(name, variant) for name, model in self._models.items() for variant in model.variants
        ]


def _variants(
    route: route_pb2.Route, known: Mapping[str, VariantHealth], now_s: float
) -> dict[str, VariantHealth]:
    found = {}
    for variant in route.variants:
        if not variant.weight or variant.stage == route_pb2.STAGE_UNSPECIFIED:
            continue
        serving = variant.stage in _SERVING
        stage = route_pb2.Stage.Name(variant.stage).removeprefix("STAGE_").lower()
        health = known.get(variant.name) or VariantHealth(stage, serving)
        health.stage, health.serving, health.due_s = stage, serving, now_s
        found[variant.name] = health
    return found
