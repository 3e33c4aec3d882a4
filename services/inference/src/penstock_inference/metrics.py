"""The metrics of inference, each declared once. vLLM adds its own, unchanged, on the engine."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

__all__ = [
    "ADAPTERS_LOADED",
    "ADAPTER_FAILURES",
    "ADAPTER_LOAD_SECONDS",
    "CACHE_BYTES",
    "CACHE_LOOKUPS",
    "CHUNKS_DROPPED",
    "GENERATED_TOKENS",
    "IN_FLIGHT",
    "LATENCY_SECONDS",
    "LIVE_ENGINES",
    "RESPONSES",
    "RESTARTED",
    "RUNNING",
    "UPSTREAM_ATTEMPTS",
]

RUNNING = Gauge("penstock_engine_running", "Generations under way on this engine replica.")
GENERATED_TOKENS = Counter(
    "penstock_engine_generated_tokens_total", "Tokens that this engine replica drew."
)
IN_FLIGHT = Gauge("penstock_pump_in_flight", "Requests that this pump has at engines.")
LIVE_ENGINES = Gauge("penstock_pump_live_engines", "Engine replicas that this pump is joined to.")
RESPONSES = Counter(
    "penstock_pump_responses_total", "Terminal records written, by outcome.", ("outcome",)
)
RESTARTED = Counter(
    "penstock_pump_work_restarted_total", "Work begun again because its engine was lost."
)
CHUNKS_DROPPED = Counter(
    "penstock_pump_chunks_dropped_total", "Token chunks not sent; the terminal record has the text."
)
LATENCY_SECONDS = Histogram(
    "penstock_pump_latency_seconds",
    "Seconds from publication to the terminal record, answered requests.",
    buckets=(0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120),
)
CACHE_LOOKUPS = Counter(
    "penstock_pump_cache_lookups_total",
    "Requests looked up in the answer caches: exact (the same question was there), similar (one "
    "much like it), or miss.",
    ("outcome",),
)
CACHE_BYTES = Gauge(
    "penstock_pump_cache_bytes", "What the answer caches take: exact or similar.", ("cache",)
)
ADAPTERS_LOADED = Gauge(
    "penstock_engine_adapters_loaded", "Adapters that this engine replica answers through."
)
ADAPTER_FAILURES = Counter(
    "penstock_engine_adapter_failures_total", "Times that an adapter could not be loaded."
)
ADAPTER_LOAD_SECONDS = Histogram(
    "penstock_engine_adapter_load_seconds",
    "Seconds from reading an adapter's files to its first answer.",
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120),
)
UPSTREAM_ATTEMPTS = Counter(
    "penstock_engine_upstream_attempts_total",
    "Requests to a hosted model's server: answered, failed (may go better again) or refused.",
    ("outcome",),
)
