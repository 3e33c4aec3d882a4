"""The metrics of the gRPC plumbing, each declared once."""

from __future__ import annotations

from prometheus_client import Histogram

__all__ = ["RPC_SECONDS"]

RPC_SECONDS = Histogram(
    "penstock_rpc_seconds",
    "Seconds from the start of a served call to its end, by method and status; counts calls too.",
    ("method", "code"),
    buckets=(0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
)
