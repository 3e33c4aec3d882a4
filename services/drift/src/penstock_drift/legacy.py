"""River's ADWIN, one per model, variant and signal. Pure, and bounded in keys.

ADWIN (Bifet and Gavalda, "Learning from time-changing data with adaptive windowing", SDM 2007)
keeps a window that it cuts where two parts of it have means that differ by more than chance, at
confidence delta for each look. Over many looks false alarms add up: these are votes that bring a
person, not proofs that start a retraining.

The state is in the memory of the process: after a restart detectors warm up anew.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math

from river.drift.adwin import ADWIN

from penstock_drift.skeleton import Key, Observation, Source

__all__ = ["Change", "Detector", "Detectors", "Noted", "usable"]

# Above it the squares of values would swamp the window's variance.
LARGEST = 1e12


@dataclasses.dataclass(frozen=True)
class Change:
    """A detector's finding.

    Attributes:
        event_id: Follows from detector, key and source: the same change has the same one.
        key: Whose signal changed.
        detector: The detector with its parameters.
        mean_before: The signal's mean over what the window let go.
        mean_after: Its mean over what the window kept.
        observations: Values that the detector has seen.
        observation: The response at which it fired.
    """

    event_id: str
    key: Key
    detector: str
    mean_before: float
    mean_after: float
    observations: int
    observation: Observation


@dataclasses.dataclass
class Noted:
    """What became of some observations: changes, and counts of values by signal."""

    changes: list[Change] = dataclasses.field(default_factory=list)
    taken: dict[str, int] = dataclasses.field(default_factory=dict)
    unusable: dict[str, int] = dataclasses.field(default_factory=dict)
    overflow: int = 0


def usable(value: float) -> bool:
    """Whether a detector may see a value: one NaN would poison ADWIN for ever."""
    return math.isfinite(value) and abs(value) <= LARGEST


class Detector:
    """ADWIN that also tells the means on both sides of its cut.

    Args:
        delta: ADWIN's confidence.
    """

    def __init__(self, delta: float) -> None:
        self._adwin = ADWIN(delta=delta)
        self.observations = 0

    def update(self, value: float) -> tuple[float, float] | None:
        """Takes a usable value; returns the means before and after the change where it fires."""
        self.observations += 1
        width, total = self._adwin.width + 1, self._adwin.total + value
        self._adwin.update(value)
        dropped = width - self._adwin.width
        if not self._adwin.drift_detected or not dropped:
            return None
        return (total - self._adwin.total) / dropped, self._adwin.estimation


class Detectors:
    """All detectors of a worker. Each record is taken once: a repeat by offset is dropped.

    Args:
        delta: ADWIN's confidence.
        max_keys: How many detectors there may be; values of further keys are counted only.
    """

    def __init__(self, delta: float, max_keys: int) -> None:
        self._delta = delta
        self._max_keys = max_keys
        self._detectors: dict[Key, Detector] = {}
        self._next_offsets: dict[tuple[str, int], int] = {}

    def __len__(self) -> int:
        return len(self._detectors)

    def take(self, observation: Observation, noted: Noted) -> None:
        """Shows an observation to its detectors and adds to `noted` what came of it."""
        source = observation.source
        place = (source.topic, source.partition)
        if source.offset < self._next_offsets.get(place, 0):
            return
        self._next_offsets[place] = source.offset + 1
        for signal, value in sorted(observation.values.items()):
            if not usable(value):
                noted.unusable[signal] = noted.unusable.get(signal, 0) + 1
                continue
            key = Key(observation.model, observation.variant, signal)
            detector = self._detector(key)
            if detector is None:
                noted.overflow += 1
                continue
            noted.taken[signal] = noted.taken.get(signal, 0) + 1
            means = detector.update(value)
            if means is not None:
                noted.changes.append(self._change(key, detector, means, observation))

    def _detector(self, key: Key) -> Detector | None:
        detector = self._detectors.get(key)
        if detector is None and len(self._detectors) < self._max_keys:
            detector = self._detectors[key] = Detector(self._delta)
        return detector

    def _change(
        self, key: Key, detector: Detector, means: tuple[float, float], observation: Observation
    ) -> Change:
        name = f"river.ADWIN(delta={self._delta:g})"
        return Change(
            event_id=_event_id(name, key, observation.source),
            key=key,
            detector=name,
            mean_before=means[0],
            mean_after=means[1],
            observations=detector.observations,
            observation=observation,
        )


def _event_id(detector: str, key: Key, source: Source) -> str:
    text = "\0".join((detector, *key, source.topic, str(source.partition), str(source.offset)))
    return hashlib.sha256(text.encode()).hexdigest()[:32]
