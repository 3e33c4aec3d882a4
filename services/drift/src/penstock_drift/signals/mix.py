"""Which segments the traffic comes from: each label's value counts once, in a bin by its hash."""

from __future__ import annotations

import itertools
import zlib
from collections import Counter

from penstock_drift.records.values import Counts, Kind, SignalType
from penstock_drift.signals.declared import Declaration
from penstock_drift.signals.facts import Facts

__all__ = ["BINS", "SIGNALS"]

BINS = 64
MAX_LABELS = 20


def traffic_mix(facts: Facts) -> Counts | None:
    """Bins of the request's labels with their values."""
    labels = itertools.islice(sorted(facts.answer.labels.items()), MAX_LABELS)
    # crc32, since Python's own hash differs between processes.
    bins = Counter(
        zlib.crc32(f"{label}={value}".encode("utf-8", "replace")) % BINS for label, value in labels
    )
    return tuple(sorted(bins.items())) or None


SIGNALS = (
    Declaration(
        "traffic_mix", SignalType.COUNTS, Kind.INPUT, "Which labels requests have.",
        size=BINS, draw=traffic_mix,
    ),
)  # fmt: skip
