"""Who is compared: the bank, each of our detectors alone, River's alone, and two that know nothing.

The bank gets a signal's values as they are; the others get numbers after the logarithm, where there
is one, in deviations of their baseline, and events as 0 and 1. STEPD
sees, of a number, whether it is above the baseline's mean.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from river.drift import DummyDriftDetector, NoDrift
from river.drift.adwin import ADWIN
from river.drift.kswin import KSWIN

from bench.drift.matching import Values
from bench.drift.streams import DAY, SPACING_MS, Scenario
from bench.drift.together import COPIED, evidence_of, normalised
from penstock_drift.channels.channel import SignalChannel, Watch
from penstock_drift.detectors import calibrated
from penstock_drift.detectors.bernoulli import Bernoulli
from penstock_drift.detectors.bounded import Bounded
from penstock_drift.detectors.gaussian import Gaussian
from penstock_drift.detectors.multinomial import Multinomial
from penstock_drift.detectors.river_backed import RiverBacked
from penstock_drift.detectors.vector import Point
from penstock_drift.records.evidence import Exemplar
from penstock_drift.records.values import Kind, SignalType, Source
from penstock_drift.signals.declared import Declaration, Transform

__all__ = ["BANK", "Bank", "contestants", "declaration_of", "prepared", "watch_of"]

BANK = "bank"
TYPES = {
    "rate": SignalType.BINARY,
    "number": SignalType.NUMBER,
    "score": SignalType.BOUNDED,
    "category": SignalType.CATEGORY,
}
NAMES = [f"class-{number}" for number in range(16)]
# Above it no threshold is looked for: mean times there are beyond any stream's length.
ENOUGH = math.log(1e7)
# Of River's that see numbers, and of those that see events.
OF_NUMBERS = ("page_hinkley", "seed", "stepd")
OF_EVENTS = ("ddm", "eddm", "fhddm", "hddm_a", "hddm_w")
# Quiet streams of either half, and runs, that contestants are shown which are run one by one.
SHOWN: Mapping[str, tuple[int, int]] = {"kswin": (6, 20), "hddm_a": (12, 40), "hddm_w": (12, 40)}
ONE_BY_ONE = (60, 200)
TITLES = {
    "adwin": "ADWIN", "adwin_spread": "ADWIN of spread", "page_hinkley": "PageHinkley",
    "kswin": "KSWIN", "seed": "SEED", "stepd": "STEPD", "ddm": "DDM", "eddm": "EDDM",
    "fhddm": "FHDDM", "hddm_a": "HDDM_A", "hddm_w": "HDDM_W",
}  # fmt: skip


def declaration_of(scenario: Scenario) -> Declaration:
    """The scenario's values as a signal."""
    return Declaration(
        scenario.name,
        TYPES[scenario.kind],
        Kind.OUTPUT,
        transform=Transform.LOG if scenario.logarithm else Transform.NONE,
        higher_is_worse=scenario.worse,
    )


def watch_of(scenario: Scenario) -> Watch:
    """How the bank watches it: as a policy with that season would."""
    if scenario.season:
        # The baseline lasts whole days by itself.
        return Watch(season="day", season_periods=scenario.baseline // DAY)
    return Watch(baseline_observations=scenario.baseline)


class Bank:
    """A channel of the bank as the service runs it; its score is the log of its evidence."""

    name, family, streams, runs = BANK, "penstock", None, None

    def __init__(self, scenario: Scenario) -> None:
        self._declaration, self._watch = declaration_of(scenario), watch_of(scenario)
        self._timed = scenario.season
        self._named = scenario.kind == "category"

    def scores(self, baseline: Values, values: Values) -> Iterator[float]:
        """Log evidence after each value."""
        channel = SignalChannel(self._declaration, self._watch)
        exemplar = Exemplar("r", Source("responses", 0, 0), 0, math.nan)
        number = 0
        for part in (baseline, values):
            for value in part.tolist():
                if self._timed:
                    exemplar = Exemplar("r", exemplar.source, number * SPACING_MS, math.nan)
                number += 1
                channel.update(NAMES[int(value)] if self._named else value, exemplar)
                if part is values:
                    yield channel.log_evidence

    def together(self, baseline: Values, values: Values) -> Values | None:
        """The same of many streams: (streams, values); None where there is no copy."""
        if self._named:
            return None
        channels = [SignalChannel(self._declaration, self._watch) for _ in baseline]
        # A season's baseline ends with the first value after its last day.
        extra = 1 if self._timed else 0
        known = np.hstack([baseline, values[:, :extra]])
        for channel, row in zip(channels, known.tolist(), strict=True):
            exemplar = Exemplar("r", Source("responses", 0, 0), 0, math.nan)
            for number, value in enumerate(row):
                if self._timed:
                    exemplar = Exemplar("r", exemplar.source, number * SPACING_MS, math.nan)
                channel.update(value, exemplar)
        assert not any(channel.warming for channel in channels)
        rest = values[:, extra:]
        detectors = [channel._lane._detector for channel in channels]
        if isinstance(detectors[0], Gaussian):
            rest = normalised(channels, rest, known.shape[1])
        found = np.maximum(evidence_of(detectors, rest), 0.0)
        return np.hstack([np.zeros((len(found), extra)), found])


class Alone:
    """One of our e-detectors, without the channel around it."""

    family = "penstock"

    def __init__(self, name: str, make: Callable[[], Any], shaped: Callable[[Values], Any]) -> None:
        self.name, self._make, self._shaped = name, make, shaped
        copied = isinstance(make(), COPIED)
        self.streams, self.runs = (None, None) if copied else ONE_BY_ONE

    def scores(self, baseline: Values, values: Values) -> Iterator[float]:
        """Log evidence after each value."""
        detector = self._make()
        for value in self._shaped(baseline):
            detector.learn(value)
        detector.arm()
        for value in self._shaped(values):
            detector.update(value)
            yield detector.mixture.log_evidence

    def together(self, baseline: Values, values: Values) -> Values | None:
        """The same of many streams: (streams, values); None where there is no copy."""
        detectors = [self._make() for _ in baseline]
        if not isinstance(detectors[0], COPIED):
            return None
        for detector, row in zip(detectors, baseline, strict=True):
            for value in self._shaped(row):
                detector.learn(value)
            detector.arm()
        return evidence_of(detectors, np.array(self._shaped(values)))


class Alarming:
    """A detector that says when it fires, and starts anew."""

    def __init__(
        self, name: str, family: str, make: Callable[[float], Any], dial: Sequence[float]
    ) -> None:
        self.name, self.family, self._make = TITLES.get(name, name), family, make
        self.streams, self.runs = SHOWN.get(name, ONE_BY_ONE)
        self.lenient, self.strict = dial

    def fires(self, dial: float, baseline: Values, values: Values) -> Iterator[bool]:
        """Whether it fires, after each value."""
        detector = self._make(dial)
        for value in baseline.tolist():
            detector.update(value)
        for value in values.tolist():
            detector.update(value)
            yield detector.fired


class Kswin:
    """River's KSWIN; until it fires its p-value does not depend on its alpha."""

    name, family = "KSWIN", "River"
    streams, runs = SHOWN["kswin"]

    def scores(self, baseline: Values, values: Values) -> Iterator[float]:
        """Less the logarithm of the p-value."""
        # The window is all that it remembers.
        detector = _Kswin(alpha=1e-300, seed=0, window=baseline[-100:].tolist())
        for value in values.tolist():
            detector.update(value)
            yield detector.score


class _Kswin(KSWIN):  # type: ignore[misc]  # River has no types
    @property
    def score(self) -> float:
        # It fires where the distance is above 0.1 too; a p-value small enough implies that.
        return -math.log(max(self.p_value, 1e-300)) if self.p_value else 0.0


class Periodic:
    """River's DummyDriftDetector: fires every so many values, whatever they are.

    It starts at a place that the stream's values decide, as its period knows nothing of them; so
    its first alarm comes after half a period on average.
    """

    name, family, streams, runs = "fixed period", "River", None, None

    def __init__(self, period: int) -> None:
        self.fixed = period

    def fires(self, dial: float, baseline: Values, values: Values) -> Iterator[bool]:
        """Whether it fires, after each value."""
        detector = DummyDriftDetector(trigger_method="fixed", t_0=round(dial))
        phase = np.random.default_rng(zlib.crc32(values.tobytes())).integers(round(dial))
        for _ in range(int(phase)):
            detector.update(0)
        for value in values.tolist():
            detector.update(value)
            yield detector.drift_detected


class Never:
    """River's NoDrift."""

    name, family, streams, runs, fixed = "NoDrift", "River", 2, 2, 0.0

    def fires(self, dial: float, baseline: Values, values: Values) -> Iterator[bool]:
        """Whether it fires, after each value: no."""
        detector = NoDrift()
        for value in values.tolist():
            detector.update(value)
            yield detector.drift_detected


def prepared(scenario: Scenario, baseline: Values, values: Values) -> tuple[Values, Values]:
    """What all but the bank get: a number's logarithm, in deviations; events as they are."""
    if scenario.kind == "rate":
        return baseline, values
    if scenario.logarithm:
        baseline, values = np.log1p(baseline), np.log1p(values)
    centre = baseline.mean(axis=-1, keepdims=True)
    scale = np.maximum(baseline.std(axis=-1, keepdims=True), 1e-9)
    return (baseline - centre) / scale, (values - centre) / scale


def contestants(scenario: Scenario, target: float) -> dict[str, Any]:
    """All of a scenario, by name; the bank alone wants values that are not `prepared`."""
    river = [
        Alarming("adwin", "River", lambda dial: _river(ADWIN(delta=dial)), _range("adwin")),
        Kswin(),
        *(_calibrated(name, scenario) for name in OF_NUMBERS),
    ]
    if scenario.kind == "rate":
        ours = [
            Alone("Bernoulli", lambda: Bernoulli(scenario.worse), _events),
            Alone("bounded", lambda: Bounded(scenario.worse), _events),
            Alone("multinomial", lambda: Multinomial(2), _two_classes),
        ]
        river += [_calibrated(name, scenario) for name in OF_EVENTS]
    elif scenario.kind == "category":
        ours = []
    else:
        baseline = scenario.baseline
        ours = [
            Alone("Gaussian", lambda: Gaussian(scenario.worse), _events),
            Alone("bounded", lambda: Bounded(scenario.worse), _between),
            Alone("multinomial", lambda: Multinomial(8), _bins),
            Alone("vector", lambda: Point(1, baseline), lambda values: values[:, None].tolist()),
        ]
        river.append(_calibrated("adwin_spread", scenario))
    found = [Bank(scenario), *ours, *river, Never(), Periodic(2 * round(target))]
    return {each.name: each for each in found}


def _calibrated(name: str, scenario: Scenario) -> Alarming:
    family = "penstock" if name in ("seed", "stepd") else "River"
    falls = scenario.worse is False
    # The makers that know one direction take which one as their second argument.
    make = calibrated.DIALS[name].make
    if name == "page_hinkley" and scenario.kind == "rate":
        # Of small numbers its sums are small.
        return Alarming(name, family, lambda dial: make(dial, falls), (0.2, 500.0))
    return Alarming(name, family, lambda dial: make(dial, falls), _range(name))


def _range(name: str) -> tuple[float, float]:
    dial = calibrated.DIALS[name]
    return dial.lenient, dial.strict


def _river(detector: Any) -> RiverBacked:
    return RiverBacked(type(detector).__name__, detector)


def _events(values: Values) -> Any:
    return values.tolist()


def _between(values: Values) -> Any:
    """Numbers as values in [0, 1]: eight deviations."""
    return np.clip(values / 8 + 0.5, 0, 1).tolist()


def _two_classes(values: Values) -> Any:
    return [((int(value), 1.0),) for value in values.tolist()]


def _bins(values: Values) -> Any:
    """Numbers as classes: by deviation, the outer ones open."""
    bins = np.clip(np.floor(values).astype(int) + 4, 0, 7)
    return [((value, 1.0),) for value in bins.tolist()]
