"""The metrics of the collector, each declared once."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

__all__ = ["BYTES", "FILES", "HELD", "RECOGNISED", "ROWS", "WRITE_FAILURES", "WRITE_SECONDS"]

ROWS = Counter(
    "penstock_retrain_collected_rows_total",
    "Rows that are durable, by kind: requests, responses, feedback.",
    ("kind",),
)
FILES = Counter("penstock_retrain_collected_files_total", "Files written, by kind.", ("kind",))
BYTES = Counter("penstock_retrain_collected_bytes_total", "Bytes of those files.", ("kind",))
RECOGNISED = Counter(
    "penstock_retrain_recognised_total",
    "Records that were in a file when they were delivered: a death came before the commit.",
    ("kind",),
)
WRITE_FAILURES = Counter(
    "penstock_retrain_collect_failures_total",
    "Files that could not be written at once; each is tried again until it can.",
    ("kind",),
)
WRITE_SECONDS = Histogram(
    "penstock_retrain_collect_write_seconds", "Time to make a file durable.", ("kind",)
)
HELD = Gauge("penstock_retrain_held_rows", "Rows in memory that wait for their file.", ("kind",))
