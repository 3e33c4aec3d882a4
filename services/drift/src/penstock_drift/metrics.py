"""The metrics of drift, each declared once."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

__all__ = ["CHANGES", "DETECTORS", "OVERFLOW", "UNUSABLE", "VALUES"]

VALUES = Counter("penstock_drift_values_total", "Values that a detector took.", ("signal",))
UNUSABLE = Counter(
    "penstock_drift_unusable_values_total",
    "Values that no detector may see: not finite, or absurdly large.",
    ("signal",),
)
CHANGES = Counter("penstock_drift_changes_total", "Changes that a detector found.", ("signal",))
DETECTORS = Gauge("penstock_drift_detectors", "Detectors in memory.")
OVERFLOW = Counter(
    "penstock_drift_overflow_values_total",
    "Values of keys beyond PENSTOCK_DRIFT_MAX_KEYS, which nobody watches.",
)
