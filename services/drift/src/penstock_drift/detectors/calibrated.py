"""The calibrated channel's detectors by name, each with one dial. Pure.

They are shown standardised values: numbers as the normaliser gives them, the others less their
baseline's mean over its deviation. Those of events see whether a value is above 0: whether a rate's
event came, whether a number is above its baseline's centre.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from penstock_drift.detectors import river_backed
from penstock_drift.detectors.protocols import Alarm
from penstock_drift.detectors.seed import Seed
from penstock_drift.detectors.stepd import Stepd

__all__ = ["DIALS", "Dial", "RestorableAlarm", "make"]


class RestorableAlarm(Alarm, Protocol):
    """An alarm that can go on from a state."""

    def restore(self, state: Mapping[str, Any], /) -> None:
        """Goes on from a state of one of the same name and dial."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class Dial:
    """What sets how readily a detector fires.

    Attributes:
        parameter: Its name.
        default: Its authors' choice; not calibrated.
        lenient: Where it fires often.
        strict: Where it hardly ever does.
        make: Makes the detector of a dial; the flag says that a fall, not a rise, is worse.
    """

    parameter: str
    default: float
    lenient: float
    strict: float
    make: Callable[[float, bool], RestorableAlarm]


DIALS: Mapping[str, Dial] = {
    "adwin": Dial("delta", 0.002, 0.9, 1e-12, lambda dial, _: river_backed.adwin(dial)),
    "adwin_spread": Dial(
        "delta", 0.002, 0.9, 1e-12, lambda dial, _: river_backed.adwin_spread(dial)
    ),
    "page_hinkley": Dial(
        "threshold", 50.0, 2.0, 2000.0, lambda dial, _: river_backed.page_hinkley(dial)
    ),
    "kswin": Dial("alpha", 0.005, 0.05, 1e-10, lambda dial, _: river_backed.kswin(dial)),
    "seed": Dial("delta", 0.05, 0.9, 1e-12, lambda dial, _: Seed(dial)),
    "stepd": Dial("significance", 0.003, 0.1, 1e-12, lambda dial, _: Stepd(dial)),
    "ddm": Dial("drift_threshold", 3.0, 1.0, 50.0, river_backed.ddm),
    "eddm": Dial("beta", 0.9, 0.99, 0.05, river_backed.eddm),
    "fhddm": Dial("confidence_level", 1e-6, 0.5, 1e-30, river_backed.fhddm),
    "hddm_a": Dial("drift_confidence", 0.001, 0.2, 1e-20, lambda d, _: river_backed.hddm_a(d)),
    "hddm_w": Dial("drift_confidence", 0.001, 0.2, 1e-20, lambda d, _: river_backed.hddm_w(d)),
}


def make(name: str, dial: float | None, higher_is_worse: bool | None) -> RestorableAlarm:
    """A detector; without a dial at its authors' choice.

    Raises:
        KeyError: There is none of that name.
    """
    known = DIALS[name]
    return known.make(known.default if dial is None else dial, higher_is_worse is False)
