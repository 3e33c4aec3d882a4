"""Requests, answers and opinions put together, from files that hold them apart. Pure.

Requests, responses and feedback of one key lie in partitions of the same number, so each partition
is put together on its own. Feedback is read first, then the responses, of which only as many are
kept as can be taken; then the requests of those alone.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping

from penstock_retrain.dataset.examples import Candidate, Coordinates, LeftOut, Pool, Tally
from penstock_retrain.dataset.names import Kind, Source
from penstock_retrain.dataset.policy import DatasetPolicy, LabelSource
from penstock_retrain.dataset.rows import FeedbackRow, RequestRow, ResponseRow, Row
from penstock_retrain.dataset.selection import Window
from penstock_retrain.dataset.splits import priority

__all__ = ["GOLDEN", "TEACHER_LABEL", "Read", "gather"]

# The label of requests of a fixed golden set; its value names the set.
GOLDEN = "golden"
# The label of requests that a teacher is asked by this service.
TEACHER_LABEL = "penstock-teacher"
# Of each pool, since near-duplicates and others are left out afterwards.
MARGIN = 4

# The rows of one partition, of one kind, in the order of their offsets, each with its source.
Read = Callable[[Kind], Iterable[tuple[Source, Row]]]


def gather(
    read: Read, model: str, policy: DatasetPolicy, window: Window, tally: Tally
) -> list[Candidate]:
    """One partition's candidates; at most `MARGIN * max_rows` of each pool.

    Args:
        read: Reads what is within the window.
        model: Only of this route.
        policy: Which labels count, and how many rows are wanted.
        window: Which time.
        tally: Counts what is left out.
    """
    opinions = _opinions(read)
    kept = _responses(read, model, policy, window, opinions, tally)
    requests: dict[str, tuple[Source, RequestRow]] = {}
    for source, row in read(Kind.REQUESTS):
        # Of two admissions of one request the first was answered.
        if isinstance(row, RequestRow) and row.request_id in kept:
            requests.setdefault(row.request_id, (source, row))
    candidates = []
    for request_id, (source, response) in kept.items():
        found = requests.get(request_id)
        if found is None:
            tally.add(LeftOut.NO_REQUEST)
            continue
        said = opinions.get((response.tenant, request_id), [])
        sources = (
            Coordinates(found[0], found[1].offset),
            Coordinates(source, response.offset),
            *(Coordinates(where, row.offset) for where, row in said),
        )
        feedback = tuple(row for _, row in said)
        candidates.append(Candidate(found[1], response, feedback, sources))
    return candidates


Opinions = Mapping[tuple[str, str], list[tuple[Source, FeedbackRow]]]


def _opinions(read: Read) -> Opinions:
    found: defaultdict[tuple[str, str], list[tuple[Source, FeedbackRow]]] = defaultdict(list)
    seen: set[tuple[str, str]] = set()
    for source, row in read(Kind.FEEDBACK):
        if not isinstance(row, FeedbackRow):
            continue
        # A retry of the same feedback says nothing new.
        once = (row.tenant, row.feedback_id)
        if row.feedback_id and once in seen:
            continue
        seen.add(once)
        found[row.tenant, row.request_id].append((source, row))
    for said in found.values():
        said.sort(key=lambda each: (each[1].time_ms, each[0], each[1].offset))
    return dict(found)


def _responses(
    read: Read,
    model: str,
    policy: DatasetPolicy,
    window: Window,
    opinions: Opinions,
    tally: Tally,
) -> dict[str, tuple[Source, ResponseRow]]:
    heaps: dict[Pool, list[tuple[float, str]]] = {pool: [] for pool in Pool}
    kept: dict[str, tuple[Source, ResponseRow]] = {}
    for source, row in read(Kind.RESPONSES):
        if not isinstance(row, ResponseRow) or row.request_id in kept:
            continue
        labelled = (row.tenant, row.request_id) in opinions
        reason = _left_out(row, model, policy, labelled=labelled)
        if reason is not None:
            tally.add(reason)
            continue
        kept[row.request_id] = source, row
        # The root of the heap is the first to go: the last in priority.
        heap = heaps[window.pool(row.time_ms, row.labels)]
        heapq.heappush(heap, (-priority(row.request_id, policy.seed), row.request_id))
        if len(heap) > MARGIN * policy.max_rows:
            del kept[heapq.heappop(heap)[1]]
            tally.add(LeftOut.MAX_ROWS)
    return kept


def _left_out(
    row: ResponseRow, model: str, policy: DatasetPolicy, *, labelled: bool
) -> LeftOut | None:
    if row.purpose or TEACHER_LABEL in row.labels:
        return LeftOut.NOT_A_CLIENTS
    if row.model != model:
        return LeftOut.OTHER_MODEL
    if GOLDEN in row.labels:
        return LeftOut.GOLDEN_SET
    if row.outcome != "answered":
        return LeftOut.NOT_ANSWERED
    if not labelled and LabelSource.TEACHER not in policy.labels:
        return LeftOut.UNLABELLED
    return None
