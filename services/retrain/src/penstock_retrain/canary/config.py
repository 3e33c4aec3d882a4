"""What a canary is asked: its metrics, which one decides, margins and levels. Pure.

CanaryConfig(
    primary=MetricSpec("accuracy", effect=0.02, margin=0.02),
    goal=Goal.NON_INFERIORITY,
    guardrails=(MetricSpec("latency_s", Limit(1.8), higher_is_better=False, source="request"),),
)
"""

from __future__ import annotations

import dataclasses
from enum import StrEnum
from typing import Any, Self

from penstock_retrain.canary.scales import UNIT, Scale, scale_from_json, scale_to_json

__all__ = ["Arm", "CanaryConfig", "Goal", "Levels", "MetricSpec"]


class Arm(StrEnum):
    """Who answered."""

    CHAMPION = "champion"
    CANDIDATE = "candidate"


class Goal(StrEnum):
    """What has to be shown of the primary metric before the candidate is promoted."""

    NON_INFERIORITY = "non_inferiority"  # not worse by the margin or more
    GAIN = "gain"  # better


@dataclasses.dataclass(frozen=True)
class MetricSpec:
    """A metric, and what counts as a difference in it. All differences are of mean scores.

    Attributes:
        name: As updates name it.
        scale: How values become scores in [0, 1].
        higher_is_better: Of values. Where false the score is one minus the place on the scale.
        source: Metrics whose values always come together for a request share a source and are
            given in one `observe`; empty: the metric alone.
        effect: The difference that the harm and the gain test are made to find soonest, above 0:
            power depends on it, validity does not.
        margin: Non-inferiority: how much worse is still acceptable, above 0.
        harm_margin: How much worse the candidate may be before its harm counts; 0: any harm that
            can be proven rolls back.
        prove: Of a guardrail: promotion needs its non-inferiority proven, beyond no harm proven.
        expected: The champion's mean score where it is known: a better start of the variance's
            estimate. Power depends on it, validity does not.
    """

    name: str
    scale: Scale = UNIT
    higher_is_better: bool = True
    source: str = ""
    effect: float = 0.02
    margin: float = 0.02
    harm_margin: float = 0.0
    prove: bool = False
    expected: float | None = None

    def __post_init__(self) -> None:
        for field, value, low in (
            ("effect", self.effect, 0.0),
            ("margin", self.margin, 0.0),
            ("harm_margin", self.harm_margin, -1e-300),
        ):
            if not low < value < 1.0:
                raise ValueError(f"{self.name}: {field} is {value}; give a difference in (0, 1)")
        if self.expected is not None and not 0.0 <= self.expected <= 1.0:
            raise ValueError(f"{self.name}: expected is {self.expected}; give a mean in [0, 1]")

    @property
    def origin(self) -> str:
        """Where the metric's values come from."""
        return self.source or f"metric:{self.name}"

    def score(self, value: float) -> float:
        """The value's score in [0, 1]. Raises ValueError where the value is not a number."""
        if value != value:
            raise ValueError(f"{self.name}: the value is not a number; leave it out")
        place = self.scale.place(value)
        return place if self.higher_is_better else 1.0 - place

    def to_json(self) -> dict[str, Any]:
        """JSON; `from_json` takes it back."""
        return vars(self) | {"scale": scale_to_json(self.scale)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """From JSON."""
        return cls(**(data | {"scale": scale_from_json(data["scale"])}))


@dataclasses.dataclass(frozen=True)
class Levels:
    """Bounds on the probabilities of a wrong end, however often one looks.

    An equal candidate is rolled back with probability at most harm + guardrails, and its canary
    ends for the split's sake with at most shares (of each count that is checked).

    Attributes:
        harm: Rolled back for the primary metric though it is not worse (by the harm margin).
        promote: Promoted though inferior by the margin (NON_INFERIORITY), or no better (GAIN).
        guardrails: Of those guardrails that roll back, the expected share that is not worse; where
            none is worse, the probability of a rollback.
        shares: A split that is as declared is called mismatched.
    """

    harm: float = 0.05
    promote: float = 0.05
    guardrails: float = 0.05
    shares: float = 0.001

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0.0 < value < 1.0:
                raise ValueError(f"levels.{name} is {value}; give a probability in (0, 1)")


@dataclasses.dataclass(frozen=True)
class CanaryConfig:
    """A canary's question.

    Attributes:
        primary: The metric that decides.
        goal: What must be shown of it.
        guardrails: Metrics that may only stop the candidate.
        levels: Error probabilities.
        minimum: Values (or pairs) of each metric and arm before anything is promoted.
        horizon: Values of the candidate (or pairs) in the primary metric after which an open
            question ends as inconclusive.
    """

    primary: MetricSpec
    goal: Goal = Goal.NON_INFERIORITY
    guardrails: tuple[MetricSpec, ...] = ()
    levels: Levels = Levels()
    minimum: int = 50
    horizon: int = 10_000

    def __post_init__(self) -> None:
        names = [metric.name for metric in self.metrics]
        if len(set(names)) < len(names):
            raise ValueError(f"two metrics share a name among {names}; rename one")
        if not 1 <= self.minimum <= self.horizon:
            raise ValueError(f"minimum is {self.minimum}; give 1 to horizon ({self.horizon})")

    @property
    def metrics(self) -> tuple[MetricSpec, ...]:
        """All, the primary one first."""
        return (self.primary, *self.guardrails)

    def to_json(self) -> dict[str, Any]:
        """JSON; `from_json` takes it back."""
        return vars(self) | {
            "primary": self.primary.to_json(),
            "goal": self.goal.value,
            "guardrails": [metric.to_json() for metric in self.guardrails],
            "levels": vars(self.levels).copy(),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """From JSON."""
        return cls(
            **data
            | {
                "primary": MetricSpec.from_json(data["primary"]),
                "goal": Goal(data["goal"]),
                "guardrails": tuple(MetricSpec.from_json(each) for each in data["guardrails"]),
                "levels": Levels(**data["levels"]),
            }
        )
