"""River's detectors behind our protocol: guarded, named, and with a state that is JSON. Pure.

No pickle: what a topic holds may have been written by anybody. A detector's state is its
attributes, of a closed list of types; what River keeps in compiled code gives bytes and takes them
back. It is tagged with River's version; under another one a detector starts empty.
"""

from __future__ import annotations

import base64
import inspect
import math
import random
import zlib
from collections import deque
from collections.abc import Mapping
from typing import Any

import river
from river import stats
from river.drift.adwin import ADWIN
from river.drift.binary import DDM, EDDM, FHDDM, HDDMA, HDDMW
from river.drift.binary.hddm_w import SampleInfo
from river.drift.kswin import KSWIN
from river.drift.page_hinkley import PageHinkley

__all__ = ["RiverBacked", "adwin", "ddm", "eddm", "fhddm", "hddm_a", "hddm_w", "kswin"]
__all__ += ["page_hinkley"]

# Compiled parts: an attribute's name, by which its bytes are known.
_COMPILED = ("_helper", "_ewmean")
# Of bytes; ADWIN has 1.4 kB after 100,000 values.
_LARGEST_STATE = 65_536
# Follows from the others, or is made anew.
_LEFT_OUT = ("_test_drift", "_rng")
_INSPECTED = (stats.Mean, stats.Var, stats.EWMean, SampleInfo)


class RiverBacked:
    """One of River's detectors.

    Args:
        name: The detector with its parameters.
        detector: It, new.
        binary: Whether it sees events: whether a value is above 0.
        flipped: Whether it sees the negative, so that it notices a fall where it knows rises.
    """

    def __init__(
        self, name: str, detector: Any, *, binary: bool = False, flipped: bool = False
    ) -> None:
        self._name = name
        self._detector = detector
        self._binary, self._flipped = binary, flipped

    @property
    def name(self) -> str:
        """The detector with its parameters."""
        return self._name

    @property
    def fired(self) -> bool:
        """Whether the last value made it fire; it then starts anew."""
        return bool(self._detector.drift_detected)

    def update(self, value: float) -> None:
        """Takes a value; one that is not finite is passed over, it would poison some for ever."""
        if not math.isfinite(value):
            return
        if self._binary:
            event = value > 0
            self._detector.update(int(event != self._flipped))
            return
        if isinstance(self._detector, KSWIN):
            # Its draws follow from its count alone, so that its state need not hold a generator's.
            self._detector._rng = random.Random(self._detector.n)  # noqa: S311
        self._detector.update(-value if self._flipped else value)

    def state(self) -> dict[str, Any]:
        """JSON; `restore` takes it back."""
        return {"river": river.__version__, "attributes": _inspect(self._detector)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from a state; starts empty where it is of another version of River."""
        if state.get("river") == river.__version__:
            _fill(self._detector, state["attributes"])


class Spread(RiverBacked):
    """Sees ln |value|: notices a change of spread where the mean stays."""

    def update(self, value: float) -> None:
        """Takes a value."""
        super().update(math.log(max(abs(value), 1e-3)))


def adwin(delta: float) -> RiverBacked:
    """Bifet and Gavalda, "Learning from time-changing data with adaptive windowing", SDM 2007."""
    return RiverBacked(f"river.ADWIN(delta={delta:g})", _adwin(delta))


def adwin_spread(delta: float) -> RiverBacked:
    """ADWIN on ln |value|."""
    return Spread(f"river.ADWIN(delta={delta:g}) of spread", _adwin(delta))


def page_hinkley(threshold: float) -> RiverBacked:
    """Page, "Continuous inspection schemes", Biometrika 1954, on standardised values."""
    name = f"river.PageHinkley(threshold={threshold:g})"
    return RiverBacked(name, PageHinkley(threshold=threshold))


def kswin(alpha: float) -> RiverBacked:
    """Raab, Heusinger, Schleif, "Reactive soft prototype computing", Neurocomputing 2020."""
    return RiverBacked(f"river.KSWIN(alpha={alpha:g})", KSWIN(alpha=alpha, seed=0))


def ddm(threshold: float, flipped: bool) -> RiverBacked:
    """Gama et al., "Learning with drift detection", SBIA 2004."""
    name = f"river.DDM(drift_threshold={threshold:g})"
    detector = DDM(warning_threshold=min(2.0, threshold), drift_threshold=threshold)
    return RiverBacked(name, detector, binary=True, flipped=flipped)


def eddm(beta: float, flipped: bool) -> RiverBacked:
    """Baena-Garcia et al., "Early drift detection method", IWKDDS 2006."""
    name = f"river.EDDM(beta={beta:g})"
    return RiverBacked(name, EDDM(alpha=max(0.95, beta), beta=beta), binary=True, flipped=flipped)


def fhddm(confidence: float, flipped: bool) -> RiverBacked:
    """Pesaranghader and Viktor, "Fast Hoeffding drift detection method", ECML-PKDD 2016.

    It knows successes and notices their fall: it is shown the negative.
    """
    name = f"river.FHDDM(confidence_level={confidence:g})"
    detector = FHDDM(confidence_level=confidence)
    return RiverBacked(name, detector, binary=True, flipped=not flipped)


def hddm_a(confidence: float) -> RiverBacked:
    """Frias-Blanco et al., "Online and non-parametric drift detection", TKDE 2015; averages."""
    name = f"river.HDDMA(drift_confidence={confidence:g})"
    detector = HDDMA(
        drift_confidence=confidence, warning_confidence=confidence, two_sided_test=True
    )
    return RiverBacked(name, detector, binary=True)


def hddm_w(confidence: float) -> RiverBacked:
    """Frias-Blanco et al., TKDE 2015; weighted averages."""
    name = f"river.HDDMW(drift_confidence={confidence:g})"
    detector = HDDMW(
        drift_confidence=confidence, warning_confidence=confidence, two_sided_test=True
    )
    return RiverBacked(name, detector, binary=True)


def _adwin(delta: float) -> ADWIN:
    # Fewer buckets of a size than River's 5: two thirds of the state, and the same delays within
    # a look (every 32 values).
    return ADWIN(delta=delta, max_buckets=2)


def _inspect(thing: Any) -> dict[str, Any]:
    """Attributes as JSON."""
    found: dict[str, Any] = {}
    arguments = inspect.signature(type(thing)).parameters
    for name, value in vars(thing).items():
        if name in arguments and not isinstance(value, deque):
            # A new one of the same name and dial has the same.
            continue
        if name in _COMPILED:
            found[name] = base64.b85encode(zlib.compress(value.__getstate__())).decode()
        elif isinstance(value, _INSPECTED):
            found[name] = _inspect(value)
        elif isinstance(value, deque):
            found[name] = list(value)
        elif isinstance(value, float) and not math.isfinite(value):
            found[name] = {"float": str(value)}
        elif name not in _LEFT_OUT:
            found[name] = value
    return found


def _fill(thing: Any, attributes: Mapping[str, Any]) -> None:
    """The opposite, into a new one of the same arguments."""
    for name, current in vars(thing).items():
        if name not in attributes:
            continue
        value = attributes[name]
        if name in _COMPILED:
            # Bounded: what comes from a topic may have been written by anybody.
            unpacked = zlib.decompressobj().decompress(base64.b85decode(value), _LARGEST_STATE)
            current.__setstate__(unpacked)
        elif isinstance(current, _INSPECTED):
            _fill(current, value)
        elif isinstance(current, deque):
            current.clear()
            current.extend(value)
        elif isinstance(value, Mapping):
            setattr(thing, name, float(value["float"]))
        else:
            setattr(thing, name, value)
