"""The parts `shadow` and `canary` of a retraining policy. Pure.

Every field is explained in `jobs/default_policy.yaml`.
"""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from penstock_retrain.canary.config import Goal, Levels
from penstock_retrain.canary.quantities import QUANTITIES, Reading

__all__ = ["CanaryPolicy", "MetricPolicy", "ShadowPolicy", "StepPolicy"]

Difference = Annotated[float, Field(gt=0, lt=1)]
Probability = Annotated[float, Field(gt=0, lt=1)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ShadowPolicy(_Part):
    """What a candidate does before it gets traffic.

    Attributes:
        percent: Of how many requests it gets copies; 0 leaves the shadow out.
        answers: Copies that it has to answer at least.
        pairs: Answers of both to one prompt that end the shadow.
        max_s: The shadow ends then at the latest.
    """

    percent: float = Field(default=20, ge=0, le=100)
    answers: int = Field(default=20, ge=1)
    pairs: int = Field(default=200, ge=0)
    max_s: float = Field(default=1800, gt=0)


class StepPolicy(_Part):
    """A traffic step.

    Attributes:
        percent: What the candidate gets of the traffic.
        values: Values of the candidate in the primary metric before the next step, or the end.
    """

    percent: float = Field(gt=0, lt=100)
    values: int = Field(default=50, ge=1)


class MetricPolicy(_Part):
    """A metric; see `penstock_retrain.canary.config.MetricSpec`.

    Attributes:
        metric: What is compared.
        bounds: The smallest and the largest value.
        limit: Whether a value is above it is what counts.
        quantile: Where neither is given: the limit is this quantile of the champion's values from
            before.
        unit: Of business values.
    """

    metric: str
    effect: Difference = 0.05
    margin: Difference = 0.03
    harm_margin: Annotated[float, Field(ge=0, lt=1)] = 0.0
    prove: bool = False
    bounds: tuple[float, float] | None = None
    limit: float | None = None
    quantile: float = Field(default=0.95, gt=0, lt=1)
    unit: str = ""

    @field_validator("metric")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in QUANTITIES:
            raise ValueError(f"not known; use one of {', '.join(QUANTITIES)}")
        return value

    @model_validator(mode="after")
    def _one_scale(self) -> Self:
        if self.bounds is not None and self.limit is not None:
            raise ValueError("give bounds or limit, not both")
        if self.bounds is not None and self.bounds[0] >= self.bounds[1]:
            raise ValueError("bounds: the first must be below the second")
        if self.metric == "value" and self.bounds is None and self.limit is None:
            raise ValueError("a business value needs bounds: [low, high], or a limit")
        return self

    @property
    def needs_reference(self) -> bool:
        """Whether its scale is made of the champion's values."""
        given = self.bounds is not None or self.limit is not None
        return not given and not QUANTITIES[self.metric].unit_scale


class LevelsPolicy(_Part):
    """Probabilities of a wrong end; see `penstock_retrain.canary.config.Levels`."""

    harm: Probability = 0.05
    promote: Probability = 0.05
    guardrails: Probability = 0.05
    shares: Probability = 0.001

    def levels(self) -> Levels:
        """As the test takes them."""
        return Levels(**self.model_dump())


class CanaryPolicy(_Part):
    """How a candidate earns the champion's place.

    Attributes:
        primary: The metric that decides.
        goal: What has to be shown of it.
        guardrails: Metrics that may only stop the candidate.
        levels: Probabilities of a wrong end.
        minimum: Values of each metric and arm before anything is promoted.
        horizon: Values of the candidate in the primary metric after which a person is asked.
        steps: Traffic steps, each larger than the one before.
        max_s: A person is asked then at the latest.
        settle_s: Requests so old count for the check of the split: late answers have come.
        baseline_s: How far back the champion's values are looked at before it begins.
        label_field: The field of a JSON answer that a plain label is for; empty: any.
    """

    primary: MetricPolicy = MetricPolicy(metric="accuracy")
    goal: Goal = Goal.NON_INFERIORITY
    guardrails: tuple[MetricPolicy, ...] = ()
    levels: LevelsPolicy = LevelsPolicy()
    minimum: int = Field(default=50, ge=1)
    horizon: int = Field(default=10_000, ge=1)
    steps: tuple[StepPolicy, ...] = (StepPolicy(percent=5), StepPolicy(percent=50, values=100))
    max_s: float = Field(default=86_400, gt=0)
    settle_s: float = Field(default=60, ge=0)
    baseline_s: float = Field(default=3600, ge=0)
    label_field: str = ""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        names = [each.metric for each in self.metrics]
        if len(set(names)) < len(names):
            raise ValueError(f"a metric is named twice among {', '.join(names)}")
        if self.minimum > self.horizon:
            raise ValueError("minimum is above horizon")
        percents = [step.percent for step in self.steps]
        if not percents or percents != sorted(set(percents)):
            raise ValueError("steps: name at least one, each with more per cent than the last")
        return self

    @property
    def metrics(self) -> tuple[MetricPolicy, ...]:
        """All, the primary one first."""
        return (self.primary, *self.guardrails)

    def reading(self) -> Reading:
        """How values are read from answers."""
        units = [each.unit for each in self.metrics if each.metric == "value"]
        return Reading(self.label_field, units[0] if units else "")
