"""Contracts to the domain's types and back."""

from __future__ import annotations

import datetime as dt

from google.protobuf.timestamp_pb2 import Timestamp

from penstock.codec import decode
from penstock.records import Record
from penstock.v1 import alert_pb2, common_pb2, drift_pb2, response_pb2
from penstock_drift.legacy import Change
from penstock_drift.skeleton import COMPLETION_TOKENS, MEAN_LOG_PROBABILITY, Observation, Source

__all__ = ["alert_of", "event_of", "observation_of"]

RUNBOOK = "docs/runbooks/drift.md"


def observation_of(record: Record) -> Observation | None:
    """What a record of `responses` tells; None where it is no answer.

    Raises:
        InvalidRequest: It is no response at all.
    """
    response = decode(record, response_pb2.GenerateResponse)
    if response.outcome != response_pb2.OUTCOME_ANSWERED:
        return None
    values = {}
    if response.HasField("usage"):
        values[COMPLETION_TOKENS] = float(response.usage.completion_tokens)
    if response.HasField("log_probabilities") and response.log_probabilities.tokens:
        values[MEAN_LOG_PROBABILITY] = response.log_probabilities.mean
    return Observation(
        model=response.model,
        variant=response.variant,
        values=values,
        time=_time_of(response, record),
        source=Source(record.partition.topic, record.partition.number, record.offset),
    )


def _time_of(response: response_pb2.GenerateResponse, record: Record) -> dt.datetime:
    if response.HasField("created_at"):
        return response.created_at.ToDatetime(dt.UTC)
    return dt.datetime.fromtimestamp(record.timestamp_ms / 1000, dt.UTC)


def _stamp(change: Change) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(change.observation.time)
    return stamp


def event_of(change: Change) -> drift_pb2.DriftEvent:
    """A change for machines. Its time is that of the response, so that a replay says the same."""
    source = change.observation.source
    return drift_pb2.DriftEvent(
        event_id=change.event_id,
        model=change.key.model,
        variant=change.key.variant,
        signal=change.key.signal,
        # No label says whether the new answers are worse.
        kind=drift_pb2.DRIFT_KIND_OUTPUT,
        detector=change.detector,
        mean_before=change.mean_before,
        mean_after=change.mean_after,
        observations=change.observations,
        detected_at=_stamp(change),
        source=common_pb2.Coordinates(
            topic=source.topic, partition=source.partition, offset=source.offset
        ),
    )


def alert_of(change: Change) -> alert_pb2.Alert:
    """A change for people."""
    key = change.key
    return alert_pb2.Alert(
        alert_id=f"{change.event_id}/opened",
        incident_id=f"drift/{change.event_id}",
        state=alert_pb2.ALERT_STATE_OPENED,
        severity=alert_pb2.SEVERITY_TICKET,
        title=f"{key.signal} of {key.model}/{key.variant} has changed",
        summary=(
            f"Its mean went from {change.mean_before:.6g} to {change.mean_after:.6g}, found by "
            f"{change.detector} after {change.observations} values"
        ),
        service="drift",
        labels={"model": key.model, "variant": key.variant, "signal": key.signal},
        runbook=RUNBOOK,
        opened_at=_stamp(change),
        updated_at=_stamp(change),
    )
