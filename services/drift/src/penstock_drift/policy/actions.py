"""The part of a policy that says what is done about a finding without asking anybody. Pure."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from penstock.measures import MAX_S

__all__ = ["RETRAIN", "Actions", "Remedy", "Retrain", "Strict"]

# The action that asks for a retraining; no remedy may have this name.
RETRAIN = "retrain"
CauseName = Literal["route_change", "adapter", "traffic_mix", "upstream", "input", "unknown"]
_NAME = r"^[a-z0-9][a-z0-9_-]{0,62}$"
# Which remedies a field says something of; the others have all of them.
_OF_KINDS = {
    "for_s": ("scale", "shed", "restart_replica"),
    "replicas": ("scale",),
    "priority_above": ("shed",),
    "share": ("shed",),
}


class Strict(BaseModel):
    """A part of a policy: what it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Retrain(Strict):
    """Which findings ask for a retraining: of quality only, whatever is written here.

    `cooldown_s` is kept by whoever asks: at most one request per model and variant in that time.
    """

    enabled: bool = False
    signals: tuple[str, ...] = ("*",)
    models: tuple[str, ...] = ("*",)
    cooldown_s: float = Field(default=86_400, ge=0, le=1e9)


class Remedy(Strict):
    """What answers operational drift for the worse, within bounds.

    Attributes:
        for_s: How long a floor holds or requests are refused; how long a restart may wait for
            another replica to live.
        replicas: Of a scale: the fewest engine replicas, within the model's maximum.
        priority_above: Of a shed: only requests with a priority value above it.
        share: Of a shed: the share of them that is refused; all of less urgent ones, a fifth of
            all requests.
    """

    name: str = Field(pattern=_NAME)
    do: Literal["scale", "shed", "rollback_route", "restart_replica"]
    signals: tuple[str, ...] = ("*",)
    models: tuple[str, ...] = ("*",)
    causes: tuple[CauseName, ...] = ()
    max_per_hour: int = Field(default=1, ge=1, le=60)
    max_age_s: float = Field(default=900, gt=0, le=86_400)
    dry_run: bool = True
    for_s: float = Field(default=900, ge=10, le=MAX_S)
    replicas: int = Field(default=2, ge=1, le=1000)
    priority_above: int | None = Field(default=None, ge=-100, le=99)
    share: float | None = Field(default=None, gt=0, le=1)

    @property
    def refused_share(self) -> float:
        """Of a shed: what is refused of the requests that it looks at, in (0, 1]."""
        if self.share is not None:
            return self.share
        return 0.2 if self.priority_above is None else 1.0

    @model_validator(mode="after")
    def _of_its_kind(self) -> Remedy:
        for field, kinds in _OF_KINDS.items():
            if field in self.model_fields_set and self.do not in kinds:
                raise ValueError(f"{field} is of {' and '.join(kinds)}: remove it from {self.do}")
        return self

    @field_validator("name")
    @classmethod
    def _free(cls, name: str) -> str:
        if name == RETRAIN:
            raise ValueError(f"{RETRAIN!r} is another action's name: choose a new one")
        return name


class Actions(Strict):
    """What is done about a finding without asking anybody."""

    retrain: Retrain = Retrain()
    remedies: tuple[Remedy, ...] = ()

    @field_validator("remedies")
    @classmethod
    def _named_once(cls, remedies: tuple[Remedy, ...]) -> tuple[Remedy, ...]:
        names = [remedy.name for remedy in remedies]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two remedies are named {', '.join(twice)}: rename one")
        return remedies

    def remedy(self, name: str) -> Remedy | None:
        """The remedy of that name."""
        return next((remedy for remedy in self.remedies if remedy.name == name), None)
