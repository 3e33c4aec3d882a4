"""When the system works again after a fault, from the histories alone. No import of penstock.

A fault's *recovery time* ends when every partition of `responses` has shown an answer to a request
that was sent after the fault. Its *longest wait* is that of the request that had to wait longest
between the fault and the next one: it also sees a stop that begins later than the fault does, as
a rebalance can.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# A request that was sent longer ago than this before a fault and is still open belongs to an
# earlier fault.
LOOK_BACK_S = 30.0


@dataclass(frozen=True)
class Answer:
    """An answered request: when it was sent and seen answered, and on which partition."""

    sent: float
    seen: float
    partition: int


@dataclass(frozen=True)
class Span:
    """A fault as it happened: its kind, its begin, the end of what was done, and the next begin."""

    kind: str
    begin: float
    end: float
    horizon: float
    overlapping: bool = False


@dataclass(frozen=True)
class Recovery:
    """What a fault cost, in seconds; None: not recovered before the horizon."""

    kind: str
    overlapping: bool
    seconds: float | None
    longest_wait_s: float


def first_answers(answers: Sequence[Answer], after: float) -> dict[int, float]:
    """When each partition first showed an answer to a request sent at `after` or later."""
    found: dict[int, float] = {}
    for answer in answers:
        if answer.sent >= after and answer.seen < found.get(answer.partition, math.inf):
            found[answer.partition] = answer.seen
    return found


def recoveries(answers: Sequence[Answer], spans: Sequence[Span], partitions: int) -> list[Recovery]:
    """The recovery after each fault, in the faults' order."""
    by_sent = sorted(answers, key=lambda answer: answer.sent)
    sent = [answer.sent for answer in by_sent]
    found = []
    for span in spans:
        during = by_sent[
            bisect_left(sent, span.begin - LOOK_BACK_S) : bisect_left(sent, span.horizon)
        ]
        first = first_answers(during, span.begin)
        seconds = max(first.values()) - span.begin if len(first) == partitions else None
        waits = (
            answer.seen - max(answer.sent, span.begin)
            for answer in during
            if answer.seen > span.begin
        )
        found.append(Recovery(span.kind, span.overlapping, seconds, max(waits, default=0.0)))
    return found


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest-rank percentile: an observed value, never an interpolated one."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def by_kind(found: Sequence[Recovery]) -> Mapping[str, list[Recovery]]:
    """Recoveries by the kind of fault; those of overlapping faults by a name of their own."""
    kinds: dict[str, list[Recovery]] = {}
    for each in found:
        kinds.setdefault("(overlapping)" if each.overlapping else each.kind, []).append(each)
    return dict(sorted(kinds.items()))
