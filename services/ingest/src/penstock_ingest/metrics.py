"""The metrics of ingest, each declared once."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

__all__ = [
    "ANSWERS",
    "INDEX_BYTES",
    "READY",
    "REQUESTS",
    "STREAM_FAULTS",
    "WAITING",
    "WAIT_SECONDS",
]

REQUESTS = Counter(
    "penstock_ingest_requests_total",
    "Requests by door (kafka, grpc, http) and by what became of them: admitted, repeated, or the "
    "code of the refusal in small letters.",
    ("door", "decision"),
)
ANSWERS = Counter(
    "penstock_ingest_answers_total",
    "Terminal responses handed to waiting callers, by door and outcome.",
    ("door", "outcome"),
)
WAIT_SECONDS = Histogram(
    "penstock_ingest_wait_seconds",
    "Seconds that a caller waited for its terminal response, by door.",
    ("door",),
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600),
)
WAITING = Gauge("penstock_ingest_waiting", "Requests that callers wait for here now.")
STREAM_FAULTS = Counter(
    "penstock_ingest_stream_faults_total",
    "Streams with a lost chunk (made up from the response) or diverging text (ended).",
    ("kind",),
)
INDEX_BYTES = Gauge("penstock_ingest_index_bytes", "Memory of the index over responses, in bytes.")
READY = Gauge("penstock_ingest_ready", "1 while requests are taken.")
