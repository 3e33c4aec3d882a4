"""The metrics of ingest, each declared once."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

__all__ = [
    "ANSWERS",
    "CANCELLATIONS",
    "INDEX_BYTES",
    "PROBES",
    "PROBE_READY",
    "PROBE_SECONDS",
    "QUEUED",
    "READY",
    "REQUESTS",
    "ROUTES_REFUSED",
    "SHADOW_COPIES",
    "SHED",
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
SHADOW_COPIES = Counter(
    "penstock_ingest_shadow_copies_total",
    "Copies of requests that were written for shadow variants, by model and variant.",
    ("model", "variant"),
)
ROUTES_REFUSED = Counter(
    "penstock_ingest_routes_refused_total",
    "Route records that were not taken in: not_newer than what is served, or invalid.",
    ("reason",),
)
SHED = Counter(
    "penstock_ingest_shed_total",
    "Requests that a measure refused, by model; among the overloaded of requests_total.",
    ("model",),
)
QUEUED = Gauge(
    "penstock_ingest_queued",
    "Clients' requests on the log that have not ended, as this instance counts them.",
)
ANSWERS = Counter(
    "penstock_ingest_answers_total",
    "Terminal responses handed to waiting callers, by door and outcome.",
    ("door", "outcome"),
)
CANCELLATIONS = Counter(
    "penstock_ingest_cancellations_total",
    "Cancellations written to the log: asked for by a call, or because the last caller left.",
    ("reason",),
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
PROBE_READY = Gauge(
    "penstock_ingest_probe_ready",
    "1 while a variant answers the synthetic requests of this instance.",
    ("model", "variant"),
)
PROBES = Counter(
    "penstock_ingest_probes_total",
    "Synthetic requests by variant and result: answered, failed.",
    ("model", "variant", "result"),
)
PROBE_SECONDS = Histogram(
    "penstock_ingest_probe_seconds",
    "Seconds from a synthetic request to its reply, where it was answered.",
    ("model", "variant"),
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
