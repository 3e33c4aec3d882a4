"""The edge between the log and the extraction: records in, records of `signals` out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from penstock.codec import decode
from penstock.errors import InvalidRequest
from penstock.identity import response_id_of
from penstock.records import Outgoing, Record
from penstock.v1 import admitted_pb2, feedback_pb2, response_pb2
from penstock_drift.extraction import metrics
from penstock_drift.extraction.extract import Extraction, Plan, left_out
from penstock_drift.extraction.facts_wire import event_time_ms
from penstock_drift.extraction.joins import Join
from penstock_drift.extraction.source_clock import SourceClock
from penstock_drift.records.signal_wire import SignalWriter
from penstock_drift.records.values import Observation, Tick

__all__ = ["FeedbackStep", "Parts", "ResponseStep", "admitted_name", "response_name"]


class Parts:
    """What the steps of all partitions share.

    Args:
        extraction: Draws observations.
        writer: Makes records of `signals`.
        plan: What the policy in force asks for.
        sources: How many sources there are.
    """

    def __init__(
        self,
        extraction: Extraction,
        writer: SignalWriter,
        plan: Callable[[], Plan],
        sources: Callable[[], int],
    ) -> None:
        self.extraction = extraction
        self.writer = writer
        self.plan = plan
        self.sources = sources

    def records(
        self, observations: Sequence[Observation], tick: Tick | None, source: str
    ) -> list[Outgoing]:
        """The observations, then the tick that ends with them."""
        metrics.OBSERVATIONS.labels(source).inc(len(observations))
        told = self.writer.everywhere(tick) if tick is not None else []
        return [*self.writer.observations(observations), *told]


class ResponseStep:
    """Draws from the responses of one partition.

    Args:
        parts: Shared by all.
        join: Finds requests in `admitted`.
        partition: The partition's number.
    """

    def __init__(self, parts: Parts, join: Join, partition: int) -> None:
        self._parts = parts
        self._join = join
        self.clock = SourceClock(f"responses/{partition}")

    @property
    def held_bytes(self) -> int:
        """What the join keeps, roughly."""
        return self._join.table.size

    async def outputs(self, record: Record, arrived_s: float) -> Sequence[Outgoing]:
        """See `penstock_drift.extraction.lines.Step`."""
        parts, plan = self._parts, self._parts.plan()
        response = decode(record, response_pb2.GenerateResponse)
        reason = left_out(response, opinion=False)
        observations: Sequence[Observation] = ()
        if reason is None:
            found = await self._join.find(response.request_id, record.timestamp_ms, arrived_s)
            metrics.REQUESTS.labels(found.how.value).inc()
            admitted = _admitted(found.record)
            with metrics.DRAW_SECONDS.labels("responses").time():
                observations = parts.extraction.of_response(record, response, admitted, plan)
        else:
            metrics.LEFT_OUT.labels("responses", reason).inc()
        tick = self.clock.saw(event_time_ms(response, record), plan.grid, parts.sources())
        return parts.records(observations, tick, "responses")

    async def close(self) -> None:
        """See `penstock_drift.extraction.lines.Step`."""
        await self._join.close()


class FeedbackStep:
    """Draws from the feedback of one partition.

    Args:
        parts: Shared by all.
        join: Finds responses.
        partition: The partition's number.
    """

    def __init__(self, parts: Parts, join: Join, partition: int) -> None:
        self._parts = parts
        self._join = join
        self.clock = SourceClock(f"feedback/{partition}")

    @property
    def held_bytes(self) -> int:
        """What the join keeps, roughly."""
        return self._join.table.size

    async def outputs(self, record: Record, arrived_s: float) -> Sequence[Outgoing]:
        """See `penstock_drift.extraction.lines.Step`."""
        parts, plan = self._parts, self._parts.plan()
        feedback = decode(record, feedback_pb2.Feedback)
        found = await self._join.find(
            response_id_of(feedback.request_id), record.timestamp_ms, arrived_s
        )
        metrics.FEEDBACK.labels(found.how.value).inc()
        observations: Sequence[Observation] = ()
        if found.record is not None:
            response = decode(found.record, response_pb2.GenerateResponse)
            reason = left_out(response, opinion=True)
            if reason is None:
                with metrics.DRAW_SECONDS.labels("feedback").time():
                    observations = parts.extraction.of_feedback(record, feedback, response, plan)
            else:
                metrics.LEFT_OUT.labels("feedback", reason).inc()
        tick = self.clock.saw(event_time_ms(feedback, record), plan.grid, parts.sources())
        return parts.records(observations, tick, "feedback")

    async def close(self) -> None:
        """See `penstock_drift.extraction.lines.Step`."""
        await self._join.close()


def admitted_name(record: Record) -> str | None:
    """The request's id; penstock's own records carry it in a header, so most are never decoded."""
    name = record.header("ce_id")
    if name is not None:
        return name
    try:
        return decode(record, admitted_pb2.AdmittedRequest).request_id
    except InvalidRequest:
        return None


def response_name(record: Record) -> str | None:
    """The response's id, likewise."""
    name = record.header("ce_id")
    if name is not None:
        return name
    try:
        return response_id_of(decode(record, response_pb2.GenerateResponse).request_id)
    except InvalidRequest:
        return None


def _admitted(record: Record | None) -> admitted_pb2.AdmittedRequest | None:
    if record is None:
        return None
    try:
        return decode(record, admitted_pb2.AdmittedRequest)
    except InvalidRequest:
        return None
