"""The metrics of folds and judge, each declared once."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from penstock.telemetry import logger
from penstock_drift.fold.partition import PartitionFold
from penstock_drift.judge.judge import Judge, Verdicts

__all__ = ["SAVE_SECONDS", "forget", "show", "show_verdicts"]

log = logger(__name__)

FOLDED = Counter("penstock_drift_folded_total", "Observations that were shown to their detectors.")
PASSED_OVER = Counter(
    "penstock_drift_passed_over_total",
    "Observations that no detector saw, by reason: late, ahead.",
    ("reason",),
)
FORCED = Counter(
    "penstock_drift_forced_ticks_total",
    "Ticks that were closed early because too much waited for them.",
)
DROPPED_KEYS = Counter(
    "penstock_drift_dropped_keys_total",
    "Keys whose detectors were dropped, by reason: evicted (too many), silent.",
    ("reason",),
)
REFUSED_POLICIES = Counter(
    "penstock_drift_refused_policies_total", "Versions on `signals` that are no policy."
)
REFUSED_VALUES = Counter(
    "penstock_drift_refused_values_total",
    "Values that a detector could not take, such as one of another type than declared.",
    ("signal",),
)
KEYS = Gauge("penstock_drift_keys", "Keys in memory.", ("partition",))
ARMED = Gauge("penstock_drift_armed_signals", "Signals with a baseline.", ("partition",))
WAITING = Gauge(
    "penstock_drift_waiting_observations",
    "Observations that wait for their tick to close.",
    ("partition",),
)
CLOSED = Gauge(
    "penstock_drift_closed_until_seconds",
    "Event time up to which everything is folded, in seconds since 1970.",
    ("partition",),
)
SAVE_SECONDS = Histogram(
    "penstock_drift_save_seconds", "How long a partition's state took to be written."
)
JUDGED = Gauge(
    "penstock_drift_judged_until_seconds",
    "Event time up to which everything is judged, in seconds since 1970.",
)
CASES = Gauge("penstock_drift_cases", "Signals whose evidence is, or lately was, above the floor.")
EVENTS = Counter(
    "penstock_drift_events_total", "Events on `drift`, by kind and state.", ("kind", "state")
)

# Those that are logged: one line for each, however many values there are.
_refusals: set[tuple[str, str]] = set()


def show(partition: int, fold: PartitionFold) -> None:
    """Shows what a fold has counted since the last call."""
    found = fold.take_counted()
    FOLDED.inc(found.folded)
    PASSED_OVER.labels("late").inc(found.late)
    PASSED_OVER.labels("ahead").inc(found.ahead)
    FORCED.inc(found.forced)
    DROPPED_KEYS.labels("evicted").inc(found.evicted)
    DROPPED_KEYS.labels("silent").inc(found.silent)
    REFUSED_POLICIES.inc(found.refused_policies)
    for (signal, why), count in found.refused_values.items():
        REFUSED_VALUES.labels(signal).inc(count)
        if (signal, why) not in _refusals:
            _refusals.add((signal, why))
            log.error("a detector cannot take values", signal=signal, why=why, first=count)
    KEYS.labels(partition).set(fold.keys)
    ARMED.labels(partition).set(fold.armed)
    WAITING.labels(partition).set(fold.buffered)
    CLOSED.labels(partition).set(fold.closed_ms / 1000)


def forget() -> None:
    """Shows no partition any more: what is not folded here does not stand still."""
    for gauge in (KEYS, ARMED, WAITING, CLOSED):
        gauge.clear()


def show_verdicts(judge: Judge, verdicts: Verdicts) -> None:
    """Shows what the judge found."""
    JUDGED.set(judge.judged_ms / 1000)
    CASES.set(len(judge.cases))
    for event in verdicts.events:
        EVENTS.labels(event.kind.value, event.state.value).inc()
        log.warning(
            "a signal came into another state",
            event_id=event.event_id,
            incident_id=event.incident_id,
            signal=event.watch.signal,
            state=event.state.value,
            **event.watch.key._asdict(),
        )
