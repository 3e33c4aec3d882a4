"""How many engine replicas a base model needs, from the work that lies ahead of them. Pure.

Work is what was admitted and not yet answered: records on Kafka, in the pumps' read-ahead and at
engines. It does not shrink while a new replica loads, so a decision repeated meanwhile is the
same decision.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

__all__ = [
    "Bounds",
    "Decision",
    "Load",
    "Outlook",
    "ScalingState",
    "Targets",
    "decide",
    "share_out",
    "total",
]

GUESSED_TOKENS = 256  # of a request that nobody has read yet, where none is held to compare


@dataclasses.dataclass(frozen=True, slots=True)
class Load:
    """Work ahead.

    Attributes:
        requests: Admitted and not yet answered.
        tokens: What their answers may take at most, in tokens.
    """

    requests: int = 0
    tokens: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Outlook:
    """What a decision is made on.

    Attributes:
        load: The work ahead; None where it is not known.
        floor: The fewest replicas that a measure wants; 0 for no measure.
    """

    load: Load | None
    floor: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Targets:
    """What one replica should have ahead of it, and how patient the scaling is.

    Attributes:
        requests: Work of one replica, in requests: its slots, or a multiple.
        tokens: The same in tokens; whichever is more of its target counts.
        release: Scales down only to as many as would then have at most this share of the target;
            the band between it and 1 keeps a load that sways from moving anything.
        up_after_s: How long the work must exceed the target first.
        down_after_s: How long it must have been below first.
    """

    requests: int
    tokens: int
    release: float = 0.6
    up_after_s: float = 5.0
    down_after_s: float = 120.0

    def __post_init__(self) -> None:
        if self.requests < 1 or self.tokens < 1 or not 0 < self.release <= 1:
            raise ValueError(f"unusable targets: {self}")

    def replicas_for(self, load: Load, share: float = 1.0) -> int:
        """How many replicas have at most that share of their target with this load."""
        need = max(load.requests / self.requests, load.tokens / self.tokens)
        # A quotient a hair above a whole number is that number.
        return math.ceil(need / share - 1e-9)


@dataclasses.dataclass(frozen=True, slots=True)
class Bounds:
    """The fewest and the most replicas."""

    minimum: int
    maximum: int

    def raised(self, floor: int) -> Bounds:
        """With a minimum of at least a floor, as far as the maximum allows."""
        return Bounds(max(self.minimum, min(floor, self.maximum)), self.maximum)

    def clip(self, replicas: int) -> int:
        """The nearest number within."""
        return min(max(replicas, self.minimum), self.maximum)


@dataclasses.dataclass(frozen=True, slots=True)
class ScalingState:
    """What is remembered from one decision to the next.

    Attributes:
        up_since_s: Since when more replicas were wanted at every look; None where they were not.
        up_least: The fewest that were wanted since.
        down_since_s: Since when fewer were enough at every look.
        down_most: The most that were needed since.
    """

    up_since_s: float | None = None
    up_least: int = 0
    down_since_s: float | None = None
    down_most: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Decision:
    """What to do.

    Attributes:
        replicas: How many there shall be.
        state: To be given to the next decision.
        reason: Why, for the log.
    """

    replicas: int
    state: ScalingState
    reason: str


def decide(
    load: Load | None,
    state: ScalingState,
    bounds: Bounds,
    targets: Targets,
    *,
    replicas: int,
    now_s: float,
) -> Decision:
    """How many replicas there shall be.

    Up after a short window in which every look wanted more, to the fewest that any look wanted;
    down after a long window in which every look needed fewer, to the most that any needed. So a
    change is followed by no other within the window of its direction, and a constant load causes
    one at most. Where nothing runs, work is not kept waiting.

    Args:
        load: The work ahead; None where it is not known, which changes nothing.
        state: Of the last decision.
        bounds: Never left, whatever the load.
        targets: What is aimed at.
        replicas: How many there are or are being started.
        now_s: Any clock that never goes back, in seconds.
    """
    if replicas != bounds.clip(replicas):
        return Decision(bounds.clip(replicas), ScalingState(), "outside its bounds")
    if load is None:
        return Decision(replicas, ScalingState(), "the load is not known")
    wanted = bounds.clip(targets.replicas_for(load))
    needed = bounds.clip(targets.replicas_for(load, targets.release))
    if wanted > replicas:
        return _up(wanted, state, targets, replicas=replicas, now_s=now_s)
    if needed < replicas:
        return _down(needed, state, targets, replicas=replicas, now_s=now_s)
    return Decision(replicas, ScalingState(), "enough")


def _up(
    wanted: int, state: ScalingState, targets: Targets, *, replicas: int, now_s: float
) -> Decision:
    if replicas == 0:
        return Decision(wanted, ScalingState(), "work, and nothing to do it")
    since_s, least = now_s, wanted
    if state.up_since_s is not None:
        since_s, least = state.up_since_s, min(wanted, state.up_least)
    if now_s - since_s >= targets.up_after_s:
        return Decision(least, ScalingState(), "more work than the target")
    waiting = ScalingState(up_since_s=since_s, up_least=least)
    return Decision(replicas, waiting, "more work than the target, for a moment so far")


def _down(
    needed: int, state: ScalingState, targets: Targets, *, replicas: int, now_s: float
) -> Decision:
    since_s, most = now_s, needed
    if state.down_since_s is not None:
        since_s, most = state.down_since_s, max(needed, state.down_most)
    if now_s - since_s >= targets.down_after_s:
        return Decision(most, ScalingState(), "less work than the target")
    waiting = ScalingState(down_since_s=since_s, down_most=most)
    return Decision(replicas, waiting, "less work than the target, for a while so far")


def total(loads: Iterable[Load]) -> Load:
    """The loads together."""
    requests = tokens = 0
    for load in loads:
        requests += load.requests
        tokens += load.tokens
    return Load(requests, tokens)


def share_out(
    runnable: Mapping[str, Load], held: int, unread: int, models: Sequence[str]
) -> dict[str, Load]:
    """The work ahead of each base model's engines, as one pump sees it.

    Records that nobody has read are taken to be like those that are held: as many tokens each, as
    many for each model, and as many that another engine could not run sooner, since they wait for
    the turn of their ordering key.

    Args:
        runnable: What is held and could run or runs, by base model.
        held: Requests that are held in all.
        unread: Records on Kafka that were not delivered yet.
        models: The base models that are served, for records of which nothing is known.
    """
    ahead = dict(runnable)
    for model in models:
        ahead.setdefault(model, Load())
    if not unread:
        return ahead
    for model, load in ahead.items():
        share = load.requests / held if held else 1 / len(ahead)
        mean = load.tokens / load.requests if load.requests else GUESSED_TOKENS
        # Rounded up: a single record left on Kafka is work too.
        more = math.ceil(unread * share)
        ahead[model] = Load(load.requests + more, load.tokens + round(more * mean))
    return ahead
