"""Every metric of retrain, declared once."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

__all__ = ["ASKS", "CLAIMED", "ROUTES", "ROUTE_SECONDS", "STAGE_SECONDS", "TRANSITIONS", "UNTOLD"]

ASKS = Counter(
    "penstock_retrain_asks",
    "Findings of drift that asked for a retraining, by what came of it: opened, refused.",
    ["outcome"],
)
TRANSITIONS = Counter(
    "penstock_retrain_transitions", "Changes of jobs that were told, by the state after.", ["state"]
)
UNTOLD = Counter(
    "penstock_retrain_untold",
    "Parts of jobs' news that could not be written: change, cost, alert, progress.",
    ["part"],
)
CLAIMED = Gauge("penstock_retrain_claimed_jobs", "Jobs that this process runs now.")
STAGE_SECONDS = Histogram(
    "penstock_retrain_stage_seconds",
    "Time in a stage, from taking it up to its end.",
    ["stage"],
    buckets=(1, 5, 15, 60, 300, 900, 3600, 14_400),
)
ROUTES = Counter(
    "penstock_retrain_routes",
    "Routes of the outbox, by outcome: published, superseded, fenced.",
    ["outcome"],
)
ROUTE_SECONDS = Histogram(
    "penstock_retrain_route_seconds",
    "Time from the decision in SQL to the route on the log.",
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2, 5, 30),
)
