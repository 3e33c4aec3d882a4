"""The records that admission writes: what was admitted, and its shadow copies."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from penstock.codec import encode
from penstock.records import Outgoing
from penstock.v1 import admitted_pb2
from penstock_ingest import metrics

__all__ = ["SOURCE", "admitted_records"]

SOURCE = "ingest"


def admitted_records(
    admitted: admitted_pb2.AdmittedRequest,
    copies: Sequence[admitted_pb2.AdmittedRequest],
    *,
    topic: str,
    key: str | bytes,
    time: dt.datetime,
) -> list[Outgoing]:
    """The admitted record, then its copies under the same key: to be written together.

    Args:
        admitted: The request.
        copies: What `Admission.shadows` made of it.
        topic: The full name of `admitted`.
        key: The records' key.
        time: When it was admitted, UTC.
    """
    for copy in copies:
        metrics.SHADOW_COPIES.labels(copy.request.model, copy.variant).inc()
    return [
        encode(request, topic=topic, key=key, source=SOURCE, event_id=request.request_id, time=time)
        for request in (admitted, *copies)
    ]
