"""The metrics of the extraction, each declared once."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

__all__ = [
    "DRAW_SECONDS",
    "FEEDBACK",
    "IDLE_TICKS",
    "JOIN_BYTES",
    "LEFT_OUT",
    "OBSERVATIONS",
    "REQUESTS",
]

OBSERVATIONS = Counter(
    "penstock_drift_observations_total",
    "Observations drawn, one per key of a record; by the topic they were drawn from.",
    ("source",),
)
LEFT_OUT = Counter(
    "penstock_drift_left_out_total",
    "Records that nothing was drawn from, and why.",
    ("source", "reason"),
)
REQUESTS = Counter(
    "penstock_drift_request_joins_total",
    "Responses by how their request was found: after, before (it was read for it), late (not).",
    ("how",),
)
FEEDBACK = Counter(
    "penstock_drift_feedback_joins_total",
    "Feedback by how its response was found: after, before (it was read for it), late (not).",
    ("how",),
)
DRAW_SECONDS = Histogram(
    "penstock_drift_draw_seconds",
    "Time to draw all signals of one record.",
    ("source",),
    buckets=(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05),
)
IDLE_TICKS = Counter(
    "penstock_drift_idle_ticks_total",
    "Ticks told by the clock, since a source had nothing to read.",
    ("source",),
)
JOIN_BYTES = Gauge(
    "penstock_drift_join_bytes",
    "Memory of the requests and responses that joins keep, roughly.",
    ("source",),
)
