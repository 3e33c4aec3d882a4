"""The metrics of drift's doors, remedies and self-test, each declared once.

Those of the extraction are in `extraction.metrics`, those of folds and judge in `worker.metrics`.
"""

from __future__ import annotations

from prometheus_client import Counter, Gauge

__all__ = [
    "ALERTMANAGER_POSTS",
    "FALSE_ALARM_RATE",
    "JUDGED_INCIDENTS",
    "OPEN_INCIDENTS",
    "REMEDIES",
    "SELF_TEST_CHANGES",
    "SELF_TEST_DELAY",
]

OPEN_INCIDENTS = Gauge(
    "penstock_drift_open_incidents",
    "Incidents of all services that are open now, by severity.",
    ("severity",),
)
JUDGED_INCIDENTS = Gauge(
    "penstock_drift_judged_incidents",
    "Incidents of drift on the log by what people thought of them: real, false, unjudged.",
    ("verdict",),
)
FALSE_ALARM_RATE = Gauge(
    "penstock_drift_false_alarm_rate",
    "Share of false alarms among the incidents of drift that people judged; NaN without any.",
)
ALERTMANAGER_POSTS = Counter(
    "penstock_drift_alertmanager_posts_total",
    "Tellings of an Alertmanager: taken or failed.",
    ("result",),
)
REMEDIES = Counter(
    "penstock_drift_remedies_total",
    "Remedies that findings asked for, by what came of it: done, dry_run, refused.",
    ("remedy", "outcome"),
)
SELF_TEST_CHANGES = Counter(
    "penstock_drift_self_test_changes_total",
    "Made-up changes, by signal and outcome: found, missed, false (found where there was none).",
    ("signal", "outcome"),
)
SELF_TEST_DELAY = Gauge(
    "penstock_drift_self_test_delay_values",
    "Values from the newest made-up change to its finding.",
    ("signal",),
)
