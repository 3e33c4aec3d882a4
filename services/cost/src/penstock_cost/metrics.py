"""The metrics of cost, each declared once."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

__all__ = ["BATCH_SECONDS", "LINES", "UNPRICED"]

LINES = Counter(
    "penstock_cost_lines_total",
    "Usage lines read, by what became of them: priced, unpriced, or repeated (applied before).",
    ("outcome",),
)
UNPRICED = Gauge(
    "penstock_cost_unpriced_lines", "Lines in the ledger that have no price, by model.", ("model",)
)
BATCH_SECONDS = Histogram(
    "penstock_cost_batch_seconds",
    "Seconds to apply a batch of usage lines in one SQL transaction.",
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
