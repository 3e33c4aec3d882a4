"""What is known of the champion before a canary: its scales, and what it will tell. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

from penstock_retrain.canary.config import CanaryConfig, MetricSpec
from penstock_retrain.canary.policy import CanaryPolicy, MetricPolicy
from penstock_retrain.canary.power import Step, prospects
from penstock_retrain.canary.quantities import QUANTITIES
from penstock_retrain.canary.scales import UNIT, Bounds, Limit, Scale

__all__ = ["Reference", "prospects_of"]

# The newest values of each metric; more would not change a quantile by much.
MAX_VALUES = 5000
# Fewer say nothing of a 95th percentile.
MIN_VALUES = 60


class Reference:
    """The champion's values from before the canary.

    Args:
        policy: Whose metrics.
    """

    def __init__(self, policy: CanaryPolicy) -> None:
        self._policy = policy
        self._values: dict[str, deque[float]] = {
            each.metric: deque(maxlen=MAX_VALUES) for each in policy.metrics
        }

    def add(self, values: Mapping[str, float]) -> None:
        """Takes values of an answer."""
        for name, value in values.items():
            self._values[name].append(value)

    def counts(self) -> dict[str, int]:
        """Values by metric."""
        return {name: len(values) for name, values in self._values.items()}

    def missing(self) -> list[str]:
        """Metrics whose scale is made of values that are not there yet."""
        return [
            each.metric
            for each in self._policy.metrics
            if each.needs_reference and len(self._values[each.metric]) < MIN_VALUES
        ]

    def config(self) -> CanaryConfig:
        """What the canary is asked; nothing may be `missing`."""
        policy = self._policy
        return CanaryConfig(
            primary=self._spec(policy.primary),
            goal=policy.goal,
            guardrails=tuple(self._spec(each) for each in policy.guardrails),
            levels=policy.levels.levels(),
            minimum=policy.minimum,
            horizon=policy.horizon,
        )

    def _spec(self, metric: MetricPolicy) -> MetricSpec:
        quantity, values = QUANTITIES[metric.metric], self._values[metric.metric]
        made = MetricSpec(
            metric.metric,
            scale=self._scale(metric),
            higher_is_better=quantity.higher_is_better,
            source=quantity.source,
            effect=metric.effect,
            margin=metric.margin,
            harm_margin=metric.harm_margin,
            prove=metric.prove,
        )
        if len(values) < MIN_VALUES:
            return made
        mean = sum(made.score(value) for value in values) / len(values)
        return MetricSpec(**{**vars(made), "expected": mean})

    def _scale(self, metric: MetricPolicy) -> Scale:
        if metric.bounds is not None:
            return Bounds(*metric.bounds)
        if metric.limit is not None:
            return Limit(metric.limit)
        if not metric.needs_reference:
            return UNIT
        finite = [value for value in self._values[metric.metric] if value != float("inf")]
        return Limit.of(finite or [0.0], metric.quantile)


def prospects_of(policy: CanaryPolicy, config: CanaryConfig, pairs: int) -> dict[str, Any]:
    """What the canary will be able to tell, as JSON: shown to people before it starts.

    Args:
        policy: With the steps.
        config: What is asked.
        pairs: Answers of both to one prompt that there are.
    """
    mean = 0.5 if config.primary.expected is None else config.primary.expected
    steps = [
        Step(step.percent / 100, round(step.values / (step.percent / 100))) for step in policy.steps
    ]
    # After the last step's values it goes on until the question is answered, or the horizon.
    last = policy.steps[-1].percent / 100
    done = sum(step.values for step in policy.steps)
    if config.horizon > done:
        steps.append(Step(last, round((config.horizon - done) / last)))
    found = prospects(config, mean, steps, pairs=pairs)
    return {
        "metric": config.primary.name,
        "champion_mean": None if config.primary.expected is None else round(mean, 4),
        "steps": [
            {
                "percent": round(100 * each.share, 2),
                "values": each.candidate,
                "smallest_harm_found": _rounded(each.harm),
                "smallest_gain_found": _rounded(each.gain),
                "promotes_an_equal_one": _rounded(each.promotes_equal),
            }
            for each in found
        ],
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
