"""Collected files made by hand: a request, its answer, and what was said of it, in a line."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from penstock_retrain.dataset.names import FileName, Kind, Source, day_of
from penstock_retrain.dataset.parquet import as_parquet
from penstock_retrain.dataset.rows import FeedbackRow, Message, RequestRow, ResponseRow, Row
from penstock_retrain.dataset.store import FileStore

LOG = "log-1"
NOW_MS = 1_800_000_000_000  # 2027-01-15T08:00Z
HOUR_MS = 3_600_000


@dataclasses.dataclass(frozen=True)
class Said:
    """One request from end to end."""

    id: str
    text: str
    answer: str = '{"category": "billing", "priority": "low"}'
    label: str | None = None
    correction: str | None = None
    score: float | None = None
    age_ms: int = HOUR_MS
    key: str = ""
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    response: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def source(kind: Kind, partition: int = 0) -> Source:
    return Source(LOG, f"penstock.{kind.topic}", partition)


def rows_of(said: Sequence[Said]) -> dict[Kind, list[Row]]:
    rows: dict[Kind, list[Row]] = {kind: [] for kind in Kind}
    for n, each in enumerate(said):
        at = NOW_MS - each.age_ms
        where = {"partition": 0, "key": each.key or each.id, "tenant": "acme"}
        rows[Kind.REQUESTS].append(request(each, **where, offset=2 * n, time_ms=at - 50))
        rows[Kind.RESPONSES].append(response(each, **where, offset=3 * n, time_ms=at))
        if (each.label, each.correction, each.score) != (None, None, None):
            rows[Kind.FEEDBACK].append(
                FeedbackRow(
                    **where,
                    offset=n,
                    time_ms=at + 1000,
                    feedback_id=f"f-{each.id}",
                    request_id=each.id,
                    label=each.label,
                    correction=each.correction,
                    score=each.score,
                )
            )
    return rows


def request(said: Said, **where: Any) -> RequestRow:
    return RequestRow(
        **where,
        request_id=said.id,
        model="triage",
        variant="base",
        route_version=1,
        purpose="",
        ordering_key=said.key,
        labels=said.labels,
        messages=(Message("system", "Sort the ticket."), Message("user", said.text)),
        prompt="",
        passages=(),
        schema="",
    )


def response(said: Said, **where: Any) -> ResponseRow:
    row = ResponseRow(
        **where,
        request_id=said.id,
        outcome="answered",
        text=said.answer,
        finish="stop",
        model="triage",
        variant="base",
        adapter="",
        route_version=1,
        purpose="",
        cached=False,
        labels=said.labels,
        prompt_tokens=10,
        completion_tokens=5,
        total_s=0.5,
    )
    return dataclasses.replace(row, **said.response)


def put(store: FileStore, kind: Kind, rows: Sequence[Row], per_file: int = 1000) -> None:
    """Writes rows as the collector would, so many in a file."""
    for start in range(0, len(rows), per_file):
        part = rows[start : start + per_file]
        where = source(kind, part[0].partition)
        name = FileName(kind, where, day_of(part[0].time_ms), part[0].offset, part[-1].offset)
        store.write(name.path, as_parquet(kind, part))


def keep(store: FileStore, said: Sequence[Said], per_file: int = 1000) -> None:
    for kind, rows in rows_of(said).items():
        put(store, kind, rows, per_file)
