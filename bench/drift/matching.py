"""First alarms, thresholds matched to one mean time to a false alarm, and delays.

No import from penstock: the rivals' environments use it too. A contestant either gives a score
after each value, of which any threshold may be taken, or has a dial and has to be run anew for each
setting. It learns from a stream's baseline, where alarms do not count, and is then watched.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

__all__ = [
    "Changed", "Contestant", "Delays", "Dialled", "Quiet", "Scored", "arl", "compare", "delays",
    "first_alarm", "first_alarms", "ratio_interval", "tuned",
]  # fmt: skip

Values = npt.NDArray[Any]
# Values from a change to the alarm, by run; infinite of a miss, NaN where one came before it.
Delays = npt.NDArray[np.float64]
# Scores closer than this are taken for one: thresholds need no more.
GRAIN = 1e-3
STEPS = 8
RESAMPLES = 2000


@dataclasses.dataclass(frozen=True)
class Quiet:
    """Streams without a change, one per row."""

    baseline: Values
    values: Values

    def half(self, second: bool, most: int | None = None) -> Quiet:
        """The half that tunes, or the one that reports; at most so many, for slow contestants."""
        middle = len(self.values) // 2
        count = middle if most is None else min(middle, most)
        rows = slice(middle, middle + count) if second else slice(0, count)
        return Quiet(self.baseline[rows], self.values[rows])


@dataclasses.dataclass(frozen=True)
class Changed:
    """Streams that change, one per row: from `values[places]` on."""

    baseline: Values
    values: Values
    places: Values

    def some(self, most: int | None) -> Changed:
        """At most so many, for slow contestants."""
        rows = slice(0, most)
        return Changed(self.baseline[rows], self.values[rows], self.places[rows])


class Contestant(Protocol):
    """What is compared.

    Attributes:
        name: The detector.
        family: Whose it is.
        streams: Quiet streams of either half that it is shown, at most; None for all.
        runs: Changes that it is shown, at most; None for all.
    """

    name: str
    family: str
    streams: int | None
    runs: int | None


class Scored(Contestant, Protocol):
    """One whose score, up to its first alarm, does not depend on the threshold."""

    def scores(self, baseline: Values, values: Values) -> Iterator[float]:
        """Its score after each value; it fires where this reaches the threshold."""
        ...


class Dialled(Contestant, Protocol):
    """One that has to be run for each setting of its dial.

    Attributes:
        lenient: A setting at which it fires often.
        strict: One at which it hardly ever does.
    """

    lenient: float
    strict: float

    def fires(self, dial: float, baseline: Values, values: Values) -> Iterator[bool]:
        """Whether it fires, after each value."""
        ...


# (values until then, score): where a score rose above all before it.
Record = Sequence[tuple[int, float]]


def arl(times: Sequence[int | None], length: int) -> float:
    """Mean values to a false alarm: all values watched, over alarms; inf without any.

    Of streams that end at `length` it is what an exponential time would have as its mean. With a
    baseline per stream times vary more than that, and it is a little less than the true mean.
    """
    alarms = sum(time is not None for time in times)
    watched = sum(length if time is None else time for time in times)
    return watched / alarms if alarms else math.inf


def arl_interval(times: Sequence[int | None], length: int) -> tuple[float, float]:
    """Its 95 % interval, by bootstrap over streams."""
    watched = np.array([length if time is None else time for time in times], dtype=float)
    alarms = np.array([time is not None for time in times], dtype=float)
    if not alarms.any():
        # The rule of three: fewer than three alarms where none were seen.
        return watched.sum() / 3, math.inf
    rng = np.random.default_rng(1)
    drawn = rng.integers(len(times), size=(RESAMPLES, len(times)))
    with np.errstate(divide="ignore"):
        found = watched[drawn].sum(axis=1) / alarms[drawn].sum(axis=1)
    # A draw without alarms is infinite, which interpolation cannot take.
    low, high = np.quantile(found, (0.025, 0.975), method="inverted_cdf")
    return float(low), float(high)


def first_alarm(who: Any, setting: float, baseline: Values, values: Values) -> int | None:
    """Values until the first alarm, itself counted; None where there is none."""
    if hasattr(who, "scores"):
        fired: Iterable[bool] = (score >= setting for score in who.scores(baseline, values))
    else:
        fired = who.fires(setting, baseline, values)
    return next((index for index, alarm in enumerate(fired, 1) if alarm), None)


def first_alarms(who: Any, setting: float, baseline: Values, values: Values) -> list[int | None]:
    """Of each stream `first_alarm`; of all together where the contestant can."""
    scores = who.together(baseline, values) if hasattr(who, "together") else None
    if scores is None:
        rows = zip(baseline, values, strict=True)
        return [first_alarm(who, setting, *row) for row in rows]
    fired = scores >= setting
    return [int(row.argmax()) + 1 if row.any() else None for row in fired]


def _records(who: Any, streams: Quiet) -> list[Record]:
    scores: Any = None
    if hasattr(who, "together"):
        scores = who.together(streams.baseline, streams.values)
    if scores is not None:
        return [_record(row.tolist()) for row in scores]
    return [_record(who.scores(*row)) for row in zip(streams.baseline, streams.values, strict=True)]


def _record(scores: Iterable[float]) -> Record:
    found: list[tuple[int, float]] = []
    highest = -math.inf
    for index, score in enumerate(scores, 1):
        if score > highest + GRAIN:
            highest = score
            found.append((index, score))
    return found


def _passage(record: Record, threshold: float) -> int | None:
    return next((index for index, score in record if score >= threshold), None)


def tuned(who: Any, streams: Quiet, target: float) -> float | None:
    """The most lenient setting whose mean time to a false alarm is the target, or more.

    None where no setting's is. Of a contestant that knows no setting (`fixed`) it is that.
    """
    if hasattr(who, "fixed"):
        return float(who.fixed)
    length = streams.values.shape[1]
    if hasattr(who, "scores"):
        return _tuned_score(_records(who, streams), length, target)
    rows = list(zip(streams.baseline, streams.values, strict=True))
    return _tuned_dial(
        lambda dial: _quiet_enough(who, dial, rows, length, target), who.lenient, who.strict
    )


def _tuned_score(records: Sequence[Record], length: int, target: float) -> float:
    candidates = sorted({score for record in records for _, score in record})
    low, high = 0, len(candidates)
    while low < high:
        middle = (low + high) // 2
        times = [_passage(record, candidates[middle]) for record in records]
        if arl(times, length) >= target:
            high = middle
        else:
            low = middle + 1
    if low == len(candidates):
        return candidates[-1] + GRAIN
    return candidates[low]


def _quiet_enough(who: Any, dial: float, rows: Any, length: int, target: float) -> bool:
    watched, alarms = 0, 0
    # No more alarms than all values could have at the target: then it can be broken off.
    most = len(rows) * length / target
    for row in rows:
        time = first_alarm(who, dial, *row)
        watched += length if time is None else time
        alarms += time is not None
        if alarms > most:
            return False
    return not alarms or watched / alarms >= target


def _tuned_dial(quiet: Callable[[float], bool], lenient: float, strict: float) -> float | None:
    if not quiet(strict):
        return None
    low, high = math.log(lenient), math.log(strict)
    for _ in range(STEPS):
        middle = (low + high) / 2
        if quiet(math.exp(middle)):
            high = middle
        else:
            low = middle
    return math.exp(high)


def compare(
    who: Any,
    quiet: Quiet,
    changes: Mapping[str, Changed],
    target: float,
    against: Mapping[str, Delays] | None = None,
) -> dict[str, Any]:
    """What is said of one contestant on one scenario: JSON.

    The setting is tuned on the first half of the quiet streams; the mean time to a false alarm and
    the delays are of the others. `against`: see `reported`.
    """
    setting = tuned(who, quiet.half(second=False, most=who.streams), target)
    found: dict[str, Any] = {"family": who.family, "setting": setting}
    if setting is None:
        return found
    return found | reported(who, quiet, changes, setting, against)


def reported(
    who: Any,
    quiet: Quiet,
    changes: Mapping[str, Changed],
    setting: float,
    against: Mapping[str, Delays] | None = None,
) -> dict[str, Any]:
    """The mean time to a false alarm and the delays, at a setting.

    Args:
        who: The contestant.
        quiet: Streams without a change; those of the second half are looked at.
        changes: Streams with one.
        setting: Its threshold, or where its dial stands.
        against: Another's delays on the same runs, by change: how many times as long it takes is
            told with its interval.
    """
    rest = quiet.half(second=True, most=who.streams)
    times = first_alarms(who, setting, rest.baseline, rest.values)
    length = rest.values.shape[1]
    low, high = arl_interval(times, length)
    found = {
        "streams": len(times),
        "alarms": sum(time is not None for time in times),
        "arl": _finite(arl(times, length)),
        "arl_low": _finite(low),
        "arl_high": _finite(high),
        "changes": {},
    }
    for name, change in changes.items():
        own = delays(who, setting, change.some(who.runs))
        found["changes"][name] = _summary(own)
        if against is not None:
            interval = ratio_interval(against[name][: len(own)], own)
            found["changes"][name]["behind"] = [_finite(each) for each in interval]
    return found


def delays(who: Any, setting: float, change: Changed) -> Delays:
    """Of each run the values from its change to the first alarm."""
    times = first_alarms(who, setting, change.baseline, change.values)
    found = np.array([math.inf if time is None else time for time in times]) - change.places
    return np.where(found <= 0, math.nan, found)


def ratio_interval(ours: Delays, theirs: Delays) -> tuple[float, float]:
    """The 95 % interval of median over median, of the same runs: by bootstrap over runs.

    Runs in which either alarmed before the change are left out.
    """
    both = ~(np.isnan(ours) | np.isnan(theirs))
    if not both.any():
        return 0.0, math.inf
    rng = np.random.default_rng(1)
    drawn = rng.integers(both.sum(), size=(RESAMPLES, both.sum()))
    medians = [_middle(each[both][drawn]) for each in (ours, theirs)]
    with np.errstate(invalid="ignore"):
        ratios = medians[0] / medians[1]
    # Where both miss most changes, neither is behind.
    ratios = np.where(np.isnan(ratios), 1.0, ratios)
    low, high = np.quantile(ratios, (0.025, 0.975), method="inverted_cdf")
    return float(low), float(high)


def _middle(rows: Delays) -> Delays:
    """Each row's median, as `_quantile` has it; a mean of two would not do with misses."""
    return np.sort(rows, axis=1)[:, math.ceil(0.5 * rows.shape[1]) - 1]


def _summary(found: Delays) -> dict[str, Any]:
    late = found[~np.isnan(found)].tolist()
    return {
        "runs": len(late),
        "early": len(found) - len(late),
        "missed": sum(math.isinf(delay) for delay in late),
        "median": _quantile(late, 0.5),
        "p95": _quantile(late, 0.95),
    }


def _quantile(late: Sequence[float], share: float) -> int | None:
    """Of the sorted delays, misses last; None where it is a miss, or there are none."""
    if not late:
        return None
    found = sorted(late)[min(len(late) - 1, math.ceil(share * len(late)) - 1)]
    return int(found) if math.isfinite(found) else None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
