"""Made-up changes that the bank has to find, all the time: who watches the watchers. Pure.

A model that nobody serves (`SELF_TEST_MODEL`) answers at a steady rate on `signals`, beside real
traffic and through the same folds and the same judge. Now and then one of its signals changes; the
change lasts until its finding is on `drift`, or until it is overdue. What is measured is the whole
path: a partition that stands still shows here too.
"""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable
from enum import StrEnum

from penstock_drift.policy.document import SELF_TEST_MODEL, Policy
from penstock_drift.records.values import ALL, Key, Observation, Source

__all__ = ["Result", "SelfTest", "Verdict", "changes_of"]

# What a finding takes besides its values: the way over the log, and a busy machine.
SLACK_MS = 30_000
# At most so many values at once: after a pause the missing ones are not made up for.
MAX_BURST = 2000
SOURCE = "selftest"


class Result(StrEnum):
    """What became of a change."""

    FOUND = "found"
    MISSED = "missed"
    # A finding where nothing had changed.
    FALSE = "false"


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What became of a change of a signal.

    Attributes:
        signal: The signal.
        result: Found, missed, or false.
        values: Values from the change to the finding; to the verdict, where it was missed.
        expected: Values that theory expects at most, patience included.
    """

    signal: str
    result: Result
    values: int
    expected: int


@dataclasses.dataclass(frozen=True)
class _Change:
    """A signal's two laws.

    Attributes:
        signal: Its name.
        draw: A value by the law before (False) or after (True).
        nats: What one value of the law after tells against the law before, on average.
    """

    signal: str
    draw: Callable[[random.Random, bool], float]
    nats: float


def changes_of(policy: Policy) -> list[_Change]:
    """The changes that a policy should see: twice as large as its least effect, or larger.

    A signal that is off, or whose baseline spans seasons, is left out; rates have no seasons.
    """
    found = []
    refusal, latency = policy.for_signal("refusal"), policy.for_signal("latency")
    if refusal.enabled:
        before, after = 0.02, min(0.02 + max(0.08, 2 * refusal.min_change), 0.9)
        nats = after * math.log(after / before) + (1 - after) * math.log((1 - after) / (1 - before))
        found.append(
            _Change("refusal", lambda r, new: float(r.random() < (after if new else before)), nats)
        )
    if latency.enabled and latency.season == "none":
        shift = max(0.5, 2 * latency.min_effect)
        # Of log(1 + x), which is what the signal is compared by.
        found.append(
            _Change(
                "latency",
                lambda r, new: math.expm1(r.gauss(1.0 + 0.3 * shift * new, 0.3)),
                shift * shift / 2,
            )
        )
    return found


class SelfTest:
    """One worker's made-up traffic.

    Args:
        policy: What is looked for.
        run: Names the run: its key is new, so that nothing is known of it yet.
        seed: Of the values.
        now_ms: The present, milliseconds since 1970.
    """

    def __init__(self, policy: Policy, *, run: str, seed: int, now_ms: int) -> None:
        self.key = Key(SELF_TEST_MODEL, run, ALL)
        self.armed = 0
        self._policy = policy
        self._changes = changes_of(policy)
        self._random = random.Random(seed)  # noqa: S311 - values to be looked at, no secrets
        self._began_ms = now_ms
        self._made = 0
        # The change under way: its number, and when, and at which value, it began.
        self._next = 0
        self._onset: tuple[int, int] | None = None
        self._quiet_from = 0
        # Signals whose last finding has not ended: they can show no second one yet.
        self._standing: set[str] = set()
        # By signal, the newest tick that may still show its last missed change.
        self._missed: dict[str, int] = {}

    @property
    def signals(self) -> frozenset[str]:
        """The signals that are changed now and then."""
        return frozenset(change.signal for change in self._changes)

    @property
    def changing(self) -> str:
        """The signal that is changed now; empty for none."""
        return self._changes[self._next].signal if self._onset is not None else ""

    def due(self, now_ms: int) -> list[Observation]:
        """The values that are due by now; the event time of each is when it was due."""
        if not self._changes:
            return []
        step_ms = 1000 / self._policy.self_test.rate_per_s
        if now_ms - self._began_ms > (self._made + MAX_BURST) * step_ms:
            # Nothing was made up for a while (the machine slept): go on from here.
            self._began_ms = now_ms - round((self._made + 1) * step_ms)
        made = []
        while (at_ms := self._began_ms + round((self._made + 1) * step_ms)) <= now_ms:
            self._turn(at_ms)
            made.append(self._one(at_ms))
        return made

    def heard(self, signal: str, *, stands: bool, found_ms: int) -> Verdict | None:
        """Takes in an event about this run: that a finding stands, or has ended.

        Args:
            signal: The signal.
            stands: Whether it is found to have changed.
            found_ms: The tick at which it was.
        """
        if not stands:
            self._standing.discard(signal)
            return None
        again = signal in self._standing
        self._standing.add(signal)
        if self._onset is not None and signal == self.changing:
            values, expected = self._made - self._onset[1], self.expected
            self._rest()
            return Verdict(signal, Result.FOUND, values, expected)
        # A finding that comes back before it has ended is the same one, and one that comes after
        # its change was given up was told as missed.
        late = signal in self._missed and found_ms <= self._missed[signal]
        return None if again or late else Verdict(signal, Result.FALSE, 0, 0)

    def look(self, now_ms: int) -> Verdict | None:
        """The verdict on a change that is overdue."""
        if self._onset is None or now_ms < self._onset[0] + self._patience_ms():
            return None
        verdict = Verdict(self.changing, Result.MISSED, self._made - self._onset[1], self.expected)
        self._missed[self.changing] = now_ms + self._ticks_ms()
        self._rest()
        return verdict

    @property
    def expected(self) -> int:
        """Values that the change under way should take at most.

        One signal among K is found by e-BH at K / alpha, which log(K / alpha) / D values reach on
        average, D being the divergence of the two laws (Lorden 1971; Shin, Ramdas and Rinaldo,
        NEJSDS 2023); times the policy's patience.
        """
        threshold = math.log(max(self.armed, 1)) - math.log(self._policy.alpha)
        nats = self._changes[self._next].nats
        return math.ceil(self._policy.self_test.patience * threshold / nats)

    def _patience_ms(self) -> int:
        values_s = self.expected / self._policy.self_test.rate_per_s
        return self._ticks_ms() + round(values_s * 1000) + SLACK_MS

    def _ticks_ms(self) -> int:
        """How long after a value the tick may be at which it makes a finding."""
        policy = self._policy
        return round(((policy.hysteresis_ticks + 1) * policy.tick_s + policy.lateness_s) * 1000)

    def _turn(self, at_ms: int) -> None:
        if self._onset is not None:
            return
        change = self._changes[self._next]
        learnt = self._policy.for_signal(change.signal).baseline_observations
        quiet = self._made - self._quiet_from
        if (
            self._made > learnt
            and quiet >= self._policy.self_test.quiet_observations
            and change.signal not in self._standing
        ):
            self._onset = (at_ms, self._made)

    def _rest(self) -> None:
        self._onset = None
        self._quiet_from = self._made
        self._next = (self._next + 1) % len(self._changes)

    def _one(self, at_ms: int) -> Observation:
        values = {
            change.signal: change.draw(self._random, change.signal == self.changing)
            for change in self._changes
        }
        made, self._made = self._made, self._made + 1
        source = Source(f"{SOURCE}/{self.key.variant}", 0, made)
        return Observation(self.key, f"{SOURCE}-{made}", at_ms, source, values, 0)
