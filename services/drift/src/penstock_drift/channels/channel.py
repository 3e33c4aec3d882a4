"""One signal of one key: its baseline, its detectors, and what they have to say. Pure.

A channel learns a baseline, freezes it, and compares what comes with it. Its whole state is JSON of
about 2 kB at most; what it does follows from its values and their order alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Self, assert_never

from penstock_drift.channels.lanes import BoundedLane, Lane, NumberLane, RateLane
from penstock_drift.channels.normalise import Season
from penstock_drift.channels.onset import Onset
from penstock_drift.channels.parts import Parts
from penstock_drift.channels.share_lanes import CategoryLane, CountsLane, PointLane
from penstock_drift.channels.tally import Examples, Tally
from penstock_drift.detectors.calibrated import RestorableAlarm, make
from penstock_drift.detectors.protocols import State
from penstock_drift.records.evidence import Channel, Exemplar, SignalEvidence, Vote
from penstock_drift.records.values import SignalType, Value
from penstock_drift.signals.declared import Declaration, Transform

__all__ = ["ORDERED", "SignalChannel", "Status", "Watch", "lane_of", "standardised"]

# Types that calibrated detectors can see: those whose values have an order.
ORDERED = (SignalType.NUMBER, SignalType.BINARY, SignalType.BOUNDED, SignalType.VECTOR)
# Types whose values have a mean that says something; of counts, how far they lie along their way.
MEANS = (SignalType.NUMBER, SignalType.BINARY, SignalType.BOUNDED, SignalType.COUNTS)
# A calibrated detector that fired speaks for so many values, if the onset is not before it.
SPEAKS_FOR = 200
# Of what detectors learn and bet on. It rises where that changes: a state of the old ones means
# nothing to the new, so the baseline is measured anew.
FORM = 2
# The same of what seasons leave open in the null.
SEASONAL_FORM = 2
# Of the CUSUM, below which what is seen shows nothing yet.
TELLING = 2.0


@dataclasses.dataclass(frozen=True)
class Watch:
    """How one signal is watched.

    Attributes:
        baseline_observations: Values of the baseline, at least.
        season: Whether the time of the day or the week is subtracted; of numbers only.
        season_periods: Whole periods that the baseline then spans.
        block: Values that are averaged into one; of numbers, rates and bounded ones.
        detectors: Those of the calibrated channel.
        thresholds: Their dials; one without has no vote.
        rebase_after: Values at the evidence's cap after which the baseline is measured anew;
            None: never.
    """

    baseline_observations: int = 2000
    season: Season = "none"
    season_periods: int = 3
    block: int = 1
    detectors: tuple[str, ...] = ()
    thresholds: Mapping[str, float] = dataclasses.field(default_factory=dict)
    rebase_after: int | None = None

    def same_baseline(self, other: Watch) -> bool:
        """Whether a baseline of the one serves the other."""

        def choices(watch: Watch) -> tuple[object, ...]:
            return (
                watch.baseline_observations, watch.season, watch.season_periods, watch.block,
            )  # fmt: skip

        return choices(self) == choices(other)


@dataclasses.dataclass(frozen=True, slots=True)
class Status:
    """Where a channel stands, for people.

    Attributes:
        baseline_observations: Values that the baseline has.
        baseline_needed: Values that it needs.
        baseline_mean: Of the baseline, in the signal's unit.
        baseline_deviation: Of the baseline, in the signal's unit.
        recent_mean: Since the most likely onset, in the signal's unit.
        observations: Values in all, since the baseline began.
        log_evidence: Natural logarithm of the e-detectors' average; 0 for none.
        baseline: The baseline's version.
        updated_ms: Event time of the newest value.
    """

    baseline_observations: int
    baseline_needed: int
    baseline_mean: float
    baseline_deviation: float
    recent_mean: float
    observations: int
    log_evidence: float
    baseline: int
    updated_ms: int


class SignalChannel:
    """Watches one signal of one key.

    Args:
        declaration: What the signal is.
        watch: How it is watched.
        baseline: Version of the baseline; 1 is the first.
    """

    def __init__(self, declaration: Declaration, watch: Watch, baseline: int = 1) -> None:
        self._declaration, self._watch = declaration, watch
        self._version = baseline
        self._lane = lane_of(declaration, watch)
        self._before, self._after = Tally(self._lane.bins), Tally(self._lane.bins)
        self._usual, self._odd = Examples(), Examples()
        # Only where values have a mean that segments' values add up to.
        self._parts = Parts() if declaration.type in MEANS else None
        self._onset = Onset()
        self._observations = 0
        self._updated_ms = 0
        self._saturated = 0
        # Whether the CUSUM has started anew: what is seen belongs to a new window from here on.
        self._begins = True
        # Of the newest value.
        self._route = 0
        self._alarms = _alarms(declaration, watch)
        # When each fired: the number of its value and its time; 0 for never.
        self._fired: dict[str, tuple[int, int]] = dict.fromkeys(self._alarms, (0, 0))

    @property
    def warming(self) -> bool:
        """Whether its baseline is still being measured."""
        return not self._lane.armed

    @property
    def baseline(self) -> int:
        """The baseline's version; rises when it is measured anew."""
        return self._version

    @property
    def log_evidence(self) -> float:
        """Natural logarithm of the average of its e-detectors' values; 0 for none."""
        return max(0.0, self._lane.mixture.log_evidence) if self._lane.armed else 0.0

    @property
    def fired(self) -> int:
        """How many calibrated detectors have fired since the onset, and have a vote."""
        return sum(map(self._speaks, self._alarms)) if self._alarms else 0

    def update(
        self,
        value: Value,
        exemplar: Exemplar,
        route_version: int = 0,
        segments: Sequence[str] = (),
    ) -> None:
        """Takes the next value, in order of event time; what is not usable does nothing.

        Args:
            value: The value.
            exemplar: Where it comes from; its `value` is not read.
            route_version: The route that the request was admitted under; 0 where not known.
            segments: Of all traffic, the segments that the value is in: one of each label.
        """
        if self._lane.armed:
            self._test(value, exemplar, route_version, segments)
        else:
            self._learn(value, exemplar, route_version, segments)

    def _learn(
        self, value: Value, exemplar: Exemplar, route_version: int, segments: Sequence[str]
    ) -> None:
        counted = self._before.count
        seen = self._lane.learn(value, exemplar.time_ms, self._before)
        if seen is None:
            return
        # Values that only set a scale are not in the baseline's mean.
        if segments and self._parts is not None and self._before.count > counted:
            self._parts.learn(segments, seen.number)
        self._observations += 1
        self._updated_ms = exemplar.time_ms
        self._route = route_version or self._route
        self._usual.offer(-seen.odd, seen.number, exemplar)

    def _test(
        self, value: Value, exemplar: Exemplar, route_version: int, segments: Sequence[str]
    ) -> None:
        lane, time_ms = self._lane, exemplar.time_ms
        mixture, begins = lane.mixture, self._begins
        ratio = 1.0 if mixture.fresh else mixture.ratio
        after = Tally(lane.bins) if begins else self._after
        seen = lane.test(value, time_ms, after)
        if seen is None:
            return
        if begins:
            # The change, if there is one, began with this value.
            self._after, self._odd = after, Examples()
            self._begins = False
            if self._parts is not None:
                self._parts.begin()
        if segments and self._parts is not None:
            self._parts.test(segments, seen.number)
        self._onset.before(begins, ratio, time_ms, self._route)
        self._observations += 1
        self._updated_ms = time_ms
        self._route = route_version or self._route
        if seen.tested is None:
            # It only fills a block.
            return
        self._begins = mixture.fresh
        self._onset.after(mixture, self._route)
        if mixture.ratio >= TELLING:
            # What speaks most for a change shows it best.
            self._odd.offer(mixture.ratio / ratio, seen.number, exemplar)
        if self._alarms:
            self._watch_alarms(seen.tested, time_ms)
        # In values of the signal, not of the mixture, which sees a block as one.
        self._saturated = self._saturated + self._watch.block if mixture.saturated else 0
        rebase_after = self._watch.rebase_after
        if rebase_after is not None and self._saturated >= rebase_after:
            self._begin_anew()

    def _watch_alarms(self, tested: float, time_ms: int) -> None:
        value = standardised(self._declaration, tested, self._before)
        for name, alarm in self._alarms.items():
            alarm.update(value)
            if alarm.fired:
                self._fired[name] = (self._observations, time_ms)

    def _speaks(self, name: str) -> bool:
        number, time_ms = self._fired[name]
        if not number or name not in self._watch.thresholds:
            return False
        recent = self._observations - number < SPEAKS_FOR
        return recent or time_ms >= self._onset.earliest_ms

    def _begin_anew(self) -> None:
        """Measures the baseline anew: the change has lasted so long that it is the new normal."""
        updated_ms, route = self._updated_ms, self._route
        self.__init__(self._declaration, self._watch, self._version + 1)  # type: ignore[misc]
        self._updated_ms, self._route = updated_ms, route

    def evidence(self) -> SignalEvidence:
        """What its detectors say, and what was seen before and since the onset."""
        told = self._lane.told(self._before, self._after)
        return SignalEvidence(
            signal=self._declaration.name,
            kind=self._declaration.kind,
            log_evidence=self.log_evidence,
            votes=self._votes(),
            onset_ms=self._onset.start_ms,
            onset_earliest_ms=self._onset.earliest_ms,
            onset_latest_ms=self._onset.latest_ms,
            before=told.before,
            after=told.after,
            effect=told.effect,
            observations_after=self._after.count,
            observations_before=self._before.count,
            histogram=told.histogram,
            exemplars_before=self._usual.all(),
            exemplars_after=self._odd.all(),
            baseline=self._version,
            route_version_before=self._onset.route,
            route_version_after=self._route,
            parts=self._parts.tallies() if self._parts is not None else (),
            shift=told.shift,
        )

    def _votes(self) -> tuple[Vote, ...]:
        votes = []
        if self._lane.armed:
            for part in self._lane.parts():
                log_evidence = max(0.0, part.log_evidence)
                votes.append(Vote(part.detector, Channel.E_DETECTORS, log_evidence, False))
        for name, alarm in self._alarms.items():
            label = alarm.name if name in self._watch.thresholds else f"{alarm.name}, uncalibrated"
            votes.append(Vote(label, Channel.CALIBRATED, 0.0, self._speaks(name)))
        return tuple(votes)

    def status(self) -> Status:
        """Where it stands."""
        return Status(
            baseline_observations=self._lane.learnt,
            baseline_needed=self._watch.baseline_observations,
            baseline_mean=self._before.mean,
            baseline_deviation=self._before.deviation,
            recent_mean=self._after.mean,
            observations=self._observations,
            log_evidence=self.log_evidence,
            baseline=self._version,
            updated_ms=self._updated_ms,
        )

    def state(self) -> State:
        """All of it, to go through JSON."""
        found: dict[str, Any] = {
            "baseline": self._version,
            "of": self._form(),
            "seen": [self._observations, self._updated_ms, self._saturated, self._begins],
            "route": self._route,
            "lane": self._lane.state(),
            "before": self._before.state(),
            "usual": self._usual.state(),
        }
        if self._parts is not None and (parts := self._parts.state()):
            found["parts"] = parts
        if self._lane.armed:
            found |= {
                "after": self._after.state(),
                "odd": self._odd.state(),
                "onset": self._onset.state(),
            }
        if self._alarms:
            found["alarms"] = {
                name: [alarm.name, alarm.state(), self._fired[name]]
                for name, alarm in self._alarms.items()
            }
        return found

    @classmethod
    def from_state(cls, declaration: Declaration, watch: Watch, state: State) -> Self:
        """Goes on from a state.

        Where the signal is declared otherwise, or its baseline chosen otherwise, the baseline is
        measured anew under the next version. A calibrated detector that is new, or has a new
        dial, starts empty.
        """
        version = state["baseline"]
        if state["of"] != cls(declaration, watch)._form():
            return cls(declaration, watch, version + 1)
        found = cls(declaration, watch, version)
        found._observations, found._updated_ms, found._saturated, found._begins = state["seen"]
        found._route = state["route"]
        found._lane.restore(state["lane"])
        found._before = Tally.from_state(state["before"])
        found._usual = Examples.from_state(state["usual"])
        if found._parts is not None:
            found._parts = Parts.from_state(state.get("parts", ()))
        if "after" in state:
            found._after = Tally.from_state(state["after"])
            found._odd = Examples.from_state(state["odd"])
            found._onset = Onset.from_state(state["onset"])
        for name, (label, saved, fired) in state.get("alarms", {}).items():
            alarm = found._alarms.get(name)
            if alarm is not None and alarm.name == label:
                alarm.restore(saved)
                found._fired[name] = (fired[0], fired[1])
        return found

    def _form(self) -> str:
        """What a state has to have in common with the channel that goes on from it."""
        declared, watch = self._declaration, self._watch
        parts = (declared.type.value, declared.transform.value, declared.higher_is_worse)
        season = "none" if watch.season == "none" else f"{watch.season}.{SEASONAL_FORM}"
        baseline = (watch.baseline_observations, season, watch.season_periods, watch.block)
        # The first is not named: states of before there were others say none.
        measure = (f"measure {declared.measure}",) if declared.measure > 1 else ()
        return "/".join(map(str, (FORM, *parts, *baseline, *measure)))


def lane_of(declaration: Declaration, watch: Watch) -> Lane:
    """The lane of a signal's type."""
    worse, baseline, block = (
        declaration.higher_is_worse, watch.baseline_observations, watch.block,
    )  # fmt: skip
    match declaration.type:
        case SignalType.NUMBER:
            logarithm = declaration.transform is Transform.LOG
            periods = watch.season_periods
            return NumberLane(worse, logarithm, watch.season, periods, block, baseline)
        case SignalType.BINARY if block == 1:
            return RateLane(worse, baseline)
        case SignalType.BINARY | SignalType.BOUNDED:
            return BoundedLane(worse, block, baseline)
        case SignalType.CATEGORY:
            return CategoryLane(baseline)
        case SignalType.COUNTS:
            return CountsLane(baseline)
        case SignalType.VECTOR:
            return PointLane(declaration.size, baseline)
        case _:  # pragma: no cover
            assert_never(declaration.type)


def standardised(declaration: Declaration, tested: float, before: Tally) -> float:
    """What calibrated detectors see: in deviations of the baseline, from its mean."""
    if declaration.type is SignalType.NUMBER:
        return tested
    return (tested - before.mean) / (before.deviation or 1.0)


def _alarms(declaration: Declaration, watch: Watch) -> dict[str, RestorableAlarm]:
    if declaration.type not in ORDERED:
        return {}
    return {
        name: make(name, watch.thresholds.get(name), declaration.higher_is_worse)
        for name in watch.detectors
    }
