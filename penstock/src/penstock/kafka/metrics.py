"""The metrics of the Kafka plumbing, each declared once."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

__all__ = ["COMMITS", "COMMIT_SECONDS", "HALTED", "HANDLED", "REBALANCES", "UNCOMMITTED"]

HANDLED = Counter(
    "penstock_kafka_records_handled_total",
    "Records whose handling ended, by topic and by whether the handler raised.",
    ("topic", "outcome"),
)
UNCOMMITTED = Gauge(
    "penstock_kafka_records_uncommitted",
    "Records delivered to this process and not yet committed.",
    ("topic", "partition"),
)
COMMITS = Counter(
    "penstock_kafka_commits_total",
    "Transactions that committed results and position together, or failed to.",
    ("topic", "outcome"),
)
COMMIT_SECONDS = Histogram(
    "penstock_kafka_commit_seconds",
    "Seconds from the begin to the end of such a transaction.",
    ("topic",),
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
HALTED = Gauge(
    "penstock_kafka_partition_halted",
    "1 while a partition stands at its limit on dead letters and waits to be resumed.",
    ("topic", "partition"),
)
REBALANCES = Counter(
    "penstock_kafka_rebalances_total",
    "Assignments that this process took, by topic.",
    ("topic",),
)
