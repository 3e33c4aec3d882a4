"""From a signal's number to one that detectors can compare: standardised, without season. Pure.

The steps, each frozen when its part of the baseline is complete, so that what comes after cannot
move what it is compared with:

1. Guard: what is not finite, or absurdly large, is not let through.
2. Transform: log(1 + x) where the signal is declared so.
3. Pilot: the first values give centre and scale by median and median absolute deviation. They are
   units, no more: everything later is compared with values in the same units.
4. Season: the mean by hour of the day or of the week, over whole periods, shrunk to the mean of
   all as far as chance explains that hours differ (empirical Bayes: Efron and Morris, "Data
   analysis using Stein's estimator", JASA 70, 1975); subtracted, between hours in proportion.
5. Block: so many values are averaged into one.
6. Autoregression: neighbours that resemble each other would count as evidence twice. What the
   value before foretells is subtracted (order 1), where the baseline shows it clearly.
"""

from __future__ import annotations

import math
import statistics
from typing import Any, Literal, Self

__all__ = ["LARGEST", "Normaliser", "Season", "usable"]

# Beyond it a number is a fault of whoever measured it, and its square would swamp all others.
LARGEST = 1e12
# Values that give the units.
PILOT = 64
# Deviations at which a value is clipped before it enters any mean.
CLIP = 8.0
# Part of the baseline that gives the autoregression; the rest is the detectors'.
TUNING = 0.25
# Autoregression below so many standard errors is taken for none.
CLEAR = 3.0
LARGEST_RHO = 0.9
# One-sided, 95 %: how far an hour's mean may be off.
ALLOWANCE = 1.645
HOUR_MS = 3_600_000
HOURS = {"none": 0, "day": 24, "week": 168}

Season = Literal["none", "day", "week"]


def usable(value: float) -> bool:
    """Whether detectors may see a number: one NaN would poison some for ever."""
    return math.isfinite(value) and -LARGEST <= value <= LARGEST


class Normaliser:
    """Normalises one signal of one key.

    Args:
        logarithm: Whether log(1 + x) is taken.
        season: What is subtracted: the time of the day, of the week, or none.
        periods: Whole periods that the baseline spans, where there is a season.
        block: Values that are averaged into one.
        baseline: Values of the baseline, at least.

    Attributes:
        tuned: Whether all steps are frozen, so that `push` gives values.
        scaled: The newest value, in the pilot's deviations from its centre and without season;
            0 during the pilot.
        allowance: How far the season may be off, on average over the values and with 95 %
            confidence, in the deviations of what `push` gives.
    """

    def __init__(
        self, logarithm: bool, season: Season, periods: int, block: int, baseline: int
    ) -> None:
        self.tuned = False
        self.scaled = 0.0
        self._logarithm = logarithm
        self._hours = HOURS[season]
        self._periods = periods
        self._block = block
        self._baseline = baseline
        self._pilot: list[float] = []
        self._centre = 0.0
        self._scale = 0.0
        self._first_ms = 0
        # Sum and count by hour, then the means, in hundredths: enough, and short as JSON.
        self._sums = [0] * self._hours
        self._counts = [0] * self._hours
        self._season: list[int] = []
        self._seasonal = 0
        self._square = 0.0
        self.allowance = 0.0
        # Of the block under way.
        self._total = 0.0
        self._filled = 0
        # Sums of the tuning: n, r, r squared, r times the one before.
        self._tuning = [0.0, 0.0, 0.0, 0.0]
        self._previous = 0.0
        self._mean = 0.0
        self._rho = 0.0
        self._divisor = 1.0

    @property
    def piloted(self) -> bool:
        """Whether the units are known."""
        return self._scale > 0

    @property
    def deseasoned(self) -> bool:
        """Whether the season is known, or there is none."""
        return self.piloted and (not self._hours or bool(self._season))

    def covers(self, time_ms: int) -> bool:
        """Whether a baseline that ends at an instant spans the periods that are asked for."""
        if not self._hours:
            return True
        return time_ms - self._first_ms >= self._periods * self._hours * HOUR_MS

    def raw(self, scaled: float) -> float:
        """The number that is so many deviations off the centre, season aside."""
        value = self._centre + scaled / self._scale
        return math.expm1(min(value, 700.0)) if self._logarithm else value

    def push(self, value: float, time_ms: int) -> float | None:
        """Takes a usable value of an instant.

        Returns:
            The normalised value; None while steps are not frozen, or a block is not full.
        """
        number = math.log1p(max(value, 0.0)) if self._logarithm else value
        if not self._scale:
            self._learn_units(number, time_ms)
            return None
        scaled = (number - self._centre) * self._scale
        scaled = CLIP if scaled > CLIP else -CLIP if scaled < -CLIP else scaled
        if self._hours:
            if not self._season:
                self._learn_season(scaled, time_ms)
                return None
            scaled -= self._at(time_ms)
        self.scaled = scaled
        if self._block > 1:
            self._total += scaled
            self._filled += 1
            if self._filled < self._block:
                return None
            scaled, self._total, self._filled = self._total / self._block, 0.0, 0
        if not self.tuned:
            self._tune(scaled)
            return None
        found = scaled - self._mean
        whitened = (found - self._rho * self._previous) * self._divisor
        self._previous = found
        return whitened

    def _learn_units(self, number: float, time_ms: int) -> None:
        if not self._pilot:
            self._first_ms = time_ms
        # Units need no more digits, and states are small.
        self._pilot.append(float(f"{number:.6g}"))
        if len(self._pilot) < min(PILOT, self._baseline // 4):
            return
        centre = statistics.median(self._pilot)
        spread = 1.4826 * statistics.median(abs(x - centre) for x in self._pilot)
        # Where most values are the same, the others still need a scale.
        spread = spread or statistics.pstdev(self._pilot) or max(abs(centre) * 1e-3, 1e-9)
        self._centre, self._scale = centre, 1.0 / spread
        self._pilot = []

    def _learn_season(self, scaled: float, time_ms: int) -> None:
        hour = time_ms // HOUR_MS % self._hours
        self._sums[hour] += round(100 * scaled)
        self._counts[hour] += 1
        self._seasonal += 1
        self._square += scaled * scaled
        spans = max(1, self._periods - 1) * self._hours * HOUR_MS
        if self._seasonal * 2 < self._baseline or time_ms - self._first_ms < spans:
            return
        hours = [(total / 100, n) for total, n in zip(self._sums, self._counts, strict=True)]
        mean = sum(total for total, _ in hours) / self._seasonal
        between = sum(total * total / count for total, count in hours if count)
        between = between / self._seasonal - mean * mean
        within = max(1e-12, self._square / self._seasonal - mean * mean - between)
        # What hours differ by beyond chance; the mean of all weighs so many values in each.
        true = between - within * self._hours / self._seasonal
        prior = min(1e9, within / true) if true > 0 else 1e9
        shrunk = [(total + prior * mean) / (count + prior) for total, count in hours]
        self._season = [round(100 * hour) for hour in shrunk]
        # By the hour's part of the traffic: one without any is off by whatever it likes, and moves
        # no value.
        errors = (count / math.sqrt(count + prior) for count in self._counts if count)
        self.allowance = ALLOWANCE * sum(errors) / self._seasonal
        self._sums, self._counts = [], []

    def _at(self, time_ms: int) -> float:
        """The season's mean, between the middles of two hours in proportion."""
        since = (time_ms - HOUR_MS // 2) / HOUR_MS
        hour = math.floor(since)
        part = since - hour
        before, after = self._season[hour % self._hours], self._season[(hour + 1) % self._hours]
        return (before + (after - before) * part) / 100

    def _tune(self, scaled: float) -> None:
        sums = self._tuning
        sums[0] += 1
        sums[1] += scaled
        sums[2] += scaled * scaled
        sums[3] += scaled * self._previous
        self._previous = scaled
        count = sums[0]
        # Of the baseline's first quarter the pilot has had its part; a season takes a half before.
        share = TUNING / 2 * self._baseline if self._hours else TUNING * self._baseline - PILOT
        if count < max(8, share / self._block):
            return
        mean = sums[1] / count
        variance = max(sums[2] / count - mean * mean, 1e-12)
        rho = (sums[3] / count - mean * mean) / variance
        if abs(rho) < CLEAR / math.sqrt(count):
            rho = 0.0
        self._rho = min(LARGEST_RHO, max(-LARGEST_RHO, rho))
        self._mean = mean
        # A constant has no deviation: the pilot's unit serves, or whatever came would be infinite.
        deviation = math.sqrt(variance) if variance > 1e-9 else 1.0
        self._divisor = 1.0 / (deviation * math.sqrt(1 - self._rho * self._rho))
        # In the detectors' deviations; autoregression cancels: it widens an hour's error as much as
        # whitening narrows it.
        self.allowance *= math.sqrt(self._block)
        self._previous -= mean
        self.tuned = True

    def state(self) -> dict[str, Any]:
        """JSON; `restore` takes it back into a normaliser of the same arguments."""
        found: dict[str, Any] = {
            "units": [self._centre, self._scale, self._first_ms],
            "block": [self._total, self._filled],
            "previous": self._previous,
        }
        if self._pilot:
            found["pilot"] = self._pilot
        if self._hours:
            found["season"] = [self._season, self._sums, self._counts]
            found["seasonal"] = [self._seasonal, self._square, self.allowance]
        if self.tuned:
            found["tuned"] = [self._mean, self._rho, self._divisor]
        else:
            found["tuning"] = self._tuning
        return found

    def restore(self, state: dict[str, Any]) -> Self:
        """Goes on from a state."""
        self._centre, self._scale, self._first_ms = state["units"]
        self._total, self._filled = state["block"]
        self._previous = state["previous"]
        self._pilot = list(state.get("pilot", ()))
        if self._hours:
            self._seasonal, self._square, self.allowance = state["seasonal"]
            self._season, self._sums, self._counts = map(list, state["season"])
        if "tuned" in state:
            self.tuned = True
            self._mean, self._rho, self._divisor = state["tuned"]
        else:
            self._tuning = list(state["tuning"])
        return self
