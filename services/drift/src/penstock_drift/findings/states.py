r"""Where one signal of one key stands, and what moves it on. Pure.

    WARMING -> ARMED <-> SUSPECT -> DRIFT -> COOLDOWN -> ARMED
                  \__________________^ ^________/
    DRIFT, COOLDOWN, SUSPECT -> REBASED -> WARMING or ARMED

A state changes only when what speaks for it has lasted: evidence for so many ticks with values,
its absence for so much event time (nothing more is heard of a signal that has gone quiet). Evidence
that comes back within the cool-down is the old finding, not a new one.
"""

from __future__ import annotations

import dataclasses
from enum import Enum

__all__ = ["Look", "Rules", "Standing", "State", "due_ms", "step", "wait"]


class State(Enum):
    """Where a signal stands."""

    # The baseline is being measured; nothing can be found yet.
    WARMING = "warming"
    ARMED = "armed"
    # Evidence that would do for one signal alone, not yet among all of them.
    SUSPECT = "suspect"
    DRIFT = "drift"
    # The evidence has gone; a new finding needs it to stay away for a while first.
    COOLDOWN = "cooldown"
    # The change has lasted so long that it is the new baseline.
    REBASED = "rebased"


@dataclasses.dataclass(frozen=True, slots=True)
class Rules:
    """How long things have to last.

    Attributes:
        tick_ms: A tick's length, milliseconds of event time.
        hysteresis_ticks: Ticks that evidence has to be there, or gone.
        cooldown_ticks: Ticks that it has to stay away.
        ttl_ms: Silence after which a signal is not looked at any more.
    """

    tick_ms: int
    hysteresis_ticks: int
    cooldown_ticks: int
    ttl_ms: int


@dataclasses.dataclass(frozen=True, slots=True)
class Look:
    """What a tick with values showed.

    Attributes:
        warming: Its baseline is being measured.
        suspicious: There is evidence enough for one signal alone.
        found: There is evidence enough among all, and the effect is large enough.
        rebased: The baseline is another one than at the tick before.
    """

    warming: bool = False
    suspicious: bool = False
    found: bool = False
    rebased: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Standing:
    """Where a signal stands.

    Attributes:
        state: Its state.
        since_ms: The end of the tick at which it came there.
        told_ms: The end of the last tick with news of it.
        there: Ticks with values in a row that showed a finding.
        gone_ms: Since when there is no evidence; None while there is some.
    """

    state: State = State.ARMED
    since_ms: int = 0
    told_ms: int = 0
    there: int = 0
    gone_ms: int | None = None


def step(standing: Standing, look: Look, now_ms: int, rules: Rules) -> Standing:
    """What a tick with values makes of it.

    Args:
        standing: Where it stood.
        look: What the tick showed.
        now_ms: The tick's end.
        rules: How long things have to last.
    """
    there = standing.there + 1 if look.found else 0
    gone_ms = None if look.suspicious or look.found else standing.gone_ms
    if gone_ms is None and not (look.suspicious or look.found):
        gone_ms = now_ms
    new = dataclasses.replace(standing, told_ms=now_ms, there=there, gone_ms=gone_ms)
    state = _next_state(new, look, rules)
    if state is not standing.state:
        new = dataclasses.replace(new, state=state, since_ms=now_ms)
    return wait(new, now_ms, rules)


def _next_state(new: Standing, look: Look, rules: Rules) -> State:
    state, lasting = new.state, new.there >= rules.hysteresis_ticks
    match state:
        case State.WARMING | State.REBASED:
            return State.WARMING if look.warming else State.ARMED
        case State.ARMED | State.SUSPECT:
            if look.rebased:
                return State.REBASED
            if lasting:
                return State.DRIFT
            return State.SUSPECT if look.suspicious or look.found else state
        case State.DRIFT:
            return State.REBASED if look.rebased else state
        case State.COOLDOWN:
            if look.rebased:
                return State.REBASED
            return State.DRIFT if lasting else state


def due_ms(standing: Standing, rules: Rules) -> int | None:
    """When it moves on by itself if nothing more is heard of it; None for never."""
    hysteresis_ms = (rules.hysteresis_ticks - 1) * rules.tick_ms
    silent_ms = standing.told_ms + rules.ttl_ms
    match standing.state:
        case State.SUSPECT | State.DRIFT:
            if standing.gone_ms is None:
                return silent_ms
            return min(standing.gone_ms + hysteresis_ms, silent_ms)
        case State.COOLDOWN:
            if standing.gone_ms is None:
                return silent_ms
            # Counted from when it went, or went again.
            return max(standing.since_ms, standing.gone_ms) + rules.cooldown_ticks * rules.tick_ms
        case _:
            return None


def wait(standing: Standing, now_ms: int, rules: Rules) -> Standing:
    """Where it stands at an instant when nothing more was heard of it."""
    due = due_ms(standing, rules)
    if due is None or now_ms < due:
        return standing
    silent = standing.gone_ms is None
    if standing.state is State.DRIFT and not silent:
        return dataclasses.replace(standing, state=State.COOLDOWN, since_ms=now_ms)
    return dataclasses.replace(standing, state=State.ARMED, since_ms=now_ms)
