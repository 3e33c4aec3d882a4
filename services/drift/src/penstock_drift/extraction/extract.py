"""What a record of `responses` or `feedback` says of which keys. Pure.

Left out, and counted: probes, replays and shadow copies, which no client asked for; answers from
the cache, which say nothing new of the variant; requests that were refused before a variant was
chosen; and golden requests, whose questions never change, except for the loss on them.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence

from penstock.pricing import PriceTable
from penstock.records import Record
from penstock.v1 import admitted_pb2, feedback_pb2, response_pb2
from penstock_drift.extraction.facts_wire import answer_of, event_time_ms, opinion_of, question_of
from penstock_drift.extraction.source_clock import Grid
from penstock_drift.policy.document import Policy
from penstock_drift.records.values import ALL, Observation, Source, Value
from penstock_drift.signals.catalogue import Catalogue, drawn
from penstock_drift.signals.declared import Declaration, Origin
from penstock_drift.signals.facts import Answer, Facts
from penstock_drift.signals.feedback import GOLDEN
from penstock_drift.signals.segments import Segments, keys_of

__all__ = ["Extraction", "Plan", "left_out", "plan_of", "source_of"]


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a policy asks of the extraction.

    Attributes:
        answers: Signals to be drawn from responses and requests.
        opinions: Signals to be drawn from feedback.
        segments: By label, how many of its values are watched on their own.
        grid: How event time is divided.
    """

    answers: Sequence[Declaration]
    opinions: Sequence[Declaration]
    segments: Mapping[str, int]
    grid: Grid


@functools.lru_cache(maxsize=4)
def _grid(tick_s: float, lateness_s: float) -> Grid:
    return Grid(tick_ms=round(tick_s * 1000), lateness_ms=round(lateness_s * 1000))


def plan_of(policy: Policy, catalogue: Catalogue) -> Plan:
    """The plan of a policy; make it once per policy."""
    enabled = [s for name, s in catalogue.items() if policy.for_signal(name).enabled]
    return Plan(
        answers=tuple(s for s in enabled if s.origin is not Origin.FEEDBACK),
        opinions=tuple(s for s in enabled if s.origin is Origin.FEEDBACK),
        segments=policy.segments,
        grid=_grid(policy.tick_s, policy.lateness_s),
    )


def left_out(response: response_pb2.GenerateResponse, *, opinion: bool) -> str | None:
    """Why nothing is drawn from a response, or from an opinion on it; None where something is."""
    if response.purpose:
        return "not a client's"
    if response.cached:
        return "cached"
    if not response.variant:
        return "no variant"
    if GOLDEN in response.labels and not opinion:
        return "golden"
    return None


def source_of(record: Record, topic: str) -> Source:
    """Where a record stands, by its topic's name without prefix."""
    return Source(topic, record.partition.number, record.offset)


class Extraction:
    """Draws observations.

    Args:
        prices: What tokens cost; None where nobody knows.
    """

    def __init__(self, prices: PriceTable | None = None) -> None:
        self._prices = prices
        self._segments = Segments()

    def of_response(
        self,
        record: Record,
        response: response_pb2.GenerateResponse,
        admitted: admitted_pb2.AdmittedRequest | None,
        plan: Plan,
    ) -> list[Observation]:
        """What a response says: one observation per key.

        Args:
            record: Of `responses`.
            response: What it holds.
            admitted: Its request; None where it is not known: signals of it are absent then.
            plan: What to draw.
        """
        answer = answer_of(response, self._prices)
        facts = Facts(answer, question_of(admitted) if admitted is not None else None)
        values = drawn(facts, plan.answers)
        time_ms = event_time_ms(response, record)
        return self._spread(answer, values, source_of(record, "responses"), time_ms, plan)

    def of_feedback(
        self,
        record: Record,
        feedback: feedback_pb2.Feedback,
        response: response_pb2.GenerateResponse,
        plan: Plan,
    ) -> list[Observation]:
        """What somebody says of a response: one observation per key of the response.

        Args:
            record: Of `feedback`.
            feedback: What it holds.
            response: What it is about.
            plan: What to draw.
        """
        answer = answer_of(response)
        values = drawn(Facts(answer, opinion=opinion_of(feedback)), plan.opinions)
        time_ms = event_time_ms(feedback, record)
        return self._spread(answer, values, source_of(record, "feedback"), time_ms, plan)

    def _spread(
        self,
        answer: Answer,
        values: Mapping[str, Value],
        source: Source,
        time_ms: int,
        plan: Plan,
    ) -> list[Observation]:
        if not values:
            return []
        segments = self._segments.of(answer, plan.segments, time_ms)
        return [
            Observation(
                key,
                answer.request_id,
                time_ms,
                source,
                values,
                answer.route_version,
                answer.adapter,
                segments if key.segment == ALL else (),
            )
            for key in keys_of(answer, segments)
        ]
