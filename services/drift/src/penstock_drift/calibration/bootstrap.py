"""Dials of the calibrated channel from a user's own quiet data, by block bootstrap. Pure.

The quiet values are normalised as the channel would, against a baseline from their own beginning;
what comes after it is what detectors would have seen. Long streams without change are drawn from
that, block by block, so that neighbours keep their likeness within a block (circular block
bootstrap: Politis and Romano, "A circular block-resampling procedure for stationary data", 1992,
after Kuensch, Annals of Statistics 17, 1989). For each detector the most lenient dial is looked for
at which its mean time between alarms on them is the target.

This is calibration, no guarantee: it is as good as the quiet data are long and typical.
"""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Iterable, Sequence

from scipy.stats import chi2  # type: ignore[import-untyped]  # it has no types

from penstock_drift.channels.channel import ORDERED, Watch, lane_of, standardised
from penstock_drift.channels.tally import Tally
from penstock_drift.detectors.calibrated import DIALS, make
from penstock_drift.records.values import Value
from penstock_drift.signals.declared import Declaration

__all__ = ["Calibration", "NotEnough", "calibrate", "quiet_values", "resampled"]

# Alarms that the search is content with; the final estimate's interval says what that is worth.
ALARMS = 20
# Halvings of the dial's range, on a logarithmic scale: to a thousandth of it.
STEPS = 10
# Quiet values beyond the baseline that a bootstrap needs.
LEAST = 500


class NotEnough(Exception):
    """There are too few quiet values; the message says how many are needed."""


@dataclasses.dataclass(frozen=True, slots=True)
class Calibration:
    """What was found for one detector.

    Attributes:
        detector: Its name in a policy.
        threshold: Its dial; None where even the strictest fires too often.
        arl: Mean values between two alarms at it, on resampled quiet data; infinite for none seen.
        arl_low: Its 95 % interval, from the number of alarms.
        arl_high: The same.
        alarms: Alarms that were seen.
        observations: Values that were shown.
    """

    detector: str
    threshold: float | None
    arl: float
    arl_low: float
    arl_high: float
    alarms: int
    observations: int


def quiet_values(
    declaration: Declaration, watch: Watch, values: Iterable[tuple[Value, int]]
) -> list[float]:
    """What calibrated detectors would have seen of quiet values, after the baseline.

    Args:
        declaration: The signal.
        watch: How it is watched.
        values: Each with its event time in milliseconds, in order.

    Raises:
        NotEnough: They do not fill a baseline and `LEAST` more, or have no order.
    """
    if declaration.type not in ORDERED:
        raise NotEnough(
            f"{declaration.name} is of type {declaration.type.value}, which calibrated detectors "
            "do not see; e-detectors watch it"
        )
    lane = lane_of(declaration, watch)
    before, after = Tally(lane.bins), Tally(lane.bins)
    found: list[float] = []
    for value, time_ms in values:
        if not lane.armed:
            lane.learn(value, time_ms, before)
            continue
        seen = lane.test(value, time_ms, after)
        if seen is not None and seen.tested is not None:
            found.append(standardised(declaration, seen.tested, before))
    if len(found) < LEAST:
        needed = watch.baseline_observations + LEAST * watch.block
        raise NotEnough(
            f"{declaration.name}: {len(found)} quiet values beyond the baseline; at least {needed} "
            "values are needed in all, and whole periods where a season is subtracted"
        )
    return found


def resampled(values: Sequence[float], block: int, count: int, seed: int) -> list[float]:
    """A stream like the values, without any change beyond those that they have themselves.

    Args:
        values: They.
        block: Neighbours that stay together.
        count: Length of the stream.
        seed: Decides the draws.
    """
    draw = random.Random(seed)  # noqa: S311 (no secret)
    ring = [*values, *values[: block - 1]]
    found: list[float] = []
    while len(found) < count:
        start = draw.randrange(len(values))
        found += ring[start : start + block]
    return found[:count]


def calibrate(
    name: str,
    values: Sequence[float],
    target_arl: float,
    *,
    higher_is_worse: bool | None = None,
    block: int = 50,
    seed: int = 1,
    most: int = 2_000_000,
) -> Calibration:
    """Finds a detector's dial.

    Args:
        name: The detector's name in a policy.
        values: What it would have seen of quiet traffic.
        target_arl: Mean values between two alarms that are wanted.
        higher_is_worse: Which direction it looks at, where it knows one only.
        block: Neighbours that stay together; longer than what binds them.
        seed: Of the bootstrap.
        most: Values per look, at most; less than `ALARMS` times the target widens the interval.
    """
    count = int(min(most, ALARMS * target_arl))
    stream = resampled(values, min(block, len(values)), count, seed)
    allowed = int(count / target_arl)

    def quiet(dial: float) -> bool:
        return _alarms(name, dial, higher_is_worse, stream, allowed) <= allowed

    dial = DIALS[name]
    lenient, strict = math.log(dial.lenient), math.log(dial.strict)
    if not quiet(dial.strict):
        return _measured(name, None, dial.strict, higher_is_worse, stream)
    if not quiet(dial.lenient):
        for _ in range(STEPS):
            middle = (lenient + strict) / 2
            if quiet(math.exp(middle)):
                strict = middle
            else:
                lenient = middle
    else:
        strict = lenient
    # As people would write it; rounded towards the strict side.
    found = _rounded(math.exp(strict), dial.strict > dial.lenient)
    return _measured(name, found, found, higher_is_worse, stream)


def _measured(
    name: str, threshold: float | None, dial: float, worse: bool | None, stream: Sequence[float]
) -> Calibration:
    alarms = _alarms(name, dial, worse, stream, len(stream))
    count = len(stream)
    # The number of alarms as Poisson: exact bounds of its mean (Garwood, Biometrika 28, 1936).
    low = chi2.ppf(0.025, 2 * alarms) / 2 if alarms else 0.0
    high = chi2.ppf(0.975, 2 * alarms + 2) / 2
    return Calibration(
        detector=name,
        threshold=threshold,
        arl=count / alarms if alarms else math.inf,
        arl_low=count / high,
        arl_high=count / low if low else math.inf,
        alarms=alarms,
        observations=count,
    )


def _alarms(
    name: str, dial: float, worse: bool | None, stream: Sequence[float], enough: int
) -> int:
    """Alarms on a stream; the count stops above `enough`."""
    detector = make(name, dial, worse)
    alarms = 0
    for value in stream:
        detector.update(value)
        if detector.fired:
            alarms += 1
            if alarms > enough:
                break
    return alarms


def _rounded(dial: float, upwards: bool) -> float:
    """Three significant digits, on the given side."""
    unit = 10.0 ** (math.floor(math.log10(dial)) - 2)
    steps = dial / unit
    return float(f"{(math.ceil(steps) if upwards else math.floor(steps)) * unit:.3g}")
