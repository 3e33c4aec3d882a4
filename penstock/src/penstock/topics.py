"""Every topic of penstock, declared once: name, key, record, partitions, retention, cleanup.

Broker set-up, the Helm chart and `docs/topics.md` are generated from this table.
"""

from __future__ import annotations

import dataclasses
from enum import Enum

from google.protobuf.message import Message

from penstock.v1 import (
    admitted_pb2,
    alert_pb2,
    budget_pb2,
    control_pb2,
    drift_pb2,
    feedback_pb2,
    job_pb2,
    request_pb2,
    response_pb2,
    route_pb2,
    usage_pb2,
)

__all__ = ["MAX_REQUEST_RECORD_BYTES", "TOPICS", "Partitions", "Topic", "topic_of"]

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS

# Above what ingest admits, so that an over-long request reaches ingest and is answered
# with a clear error instead of being refused by the broker.
MAX_REQUEST_RECORD_BYTES = 8 * 1024 * 1024


class Partitions(Enum):
    """Which setting gives a topic its number of partitions."""

    WORK = "work"  # equal for requests, admitted, responses and feedback
    REPLY = "reply"  # one for each ingest instance
    ONE = "one"


@dataclasses.dataclass(frozen=True)
class Topic:
    """A topic's declaration.

    Attributes:
        name: The name without the prefix; a deployment prepends `penstock.` or its own.
        key: What a record's key is.
        record: The contract of a record's value; None where values are any bytes.
        partitions: Which setting sizes it.
        retention_ms: How long records are kept; None keeps them for ever.
        writers: The services that write it.
        readers: The services or people that read it.
        meaning: A line for the reference.
        compacted: Whether only the newest record of a key is kept.
        max_message_bytes: The largest record; None takes the broker's default.
    """

    name: str
    key: str
    record: type[Message] | None
    partitions: Partitions
    retention_ms: int | None
    writers: str
    readers: str
    meaning: str
    compacted: bool = False
    max_message_bytes: int | None = None

    def full_name(self, prefix: str) -> str:
        """The topic's name on the broker, for a deployment's prefix."""
        return f"{prefix}.{self.name}"

    def config(self) -> dict[str, str]:
        """The topic's settings on the broker."""
        settings = {
            "cleanup.policy": "compact" if self.compacted else "delete",
            "retention.ms": str(-1 if self.retention_ms is None else self.retention_ms),
        }
        if self.max_message_bytes is not None:
            settings["max.message.bytes"] = str(self.max_message_bytes)
        return settings


TOPICS: tuple[Topic, ...] = (
    Topic(
        "requests",
        key="ordering key or request id",
        record=request_pb2.GenerateRequest,
        partitions=Partitions.WORK,
        retention_ms=7 * DAY_MS,
        writers="any producer",
        readers="ingest",
        meaning="What producers ask for; untrusted, either encoding.",
        max_message_bytes=MAX_REQUEST_RECORD_BYTES,
    ),
    Topic(
        "admitted",
        key="ordering key or request id",
        record=admitted_pb2.AdmittedRequest,
        partitions=Partitions.WORK,
        retention_ms=7 * DAY_MS,
        writers="ingest, `penstock replay`, `penstock dlq`",
        readers="ingest, inference, drift, retrain",
        meaning="Requests that passed admission, with everything decided.",
        max_message_bytes=MAX_REQUEST_RECORD_BYTES,
    ),
    Topic(
        "responses",
        key="the request's key",
        record=response_pb2.GenerateResponse,
        partitions=Partitions.WORK,
        retention_ms=7 * DAY_MS,
        writers="ingest, inference",
        readers="producers, ingest, drift, retrain",
        meaning="The one terminal record per request; read committed.",
        max_message_bytes=MAX_REQUEST_RECORD_BYTES,
    ),
    Topic(
        "replays",
        key="the request's key",
        record=response_pb2.GenerateResponse,
        partitions=Partitions.WORK,
        retention_ms=7 * DAY_MS,
        writers="inference",
        readers="people on call",
        meaning="The terminal records of past requests that an operator ran again.",
        max_message_bytes=MAX_REQUEST_RECORD_BYTES,
    ),
    Topic(
        "shadows",
        key="the request's key",
        record=response_pb2.GenerateResponse,
        partitions=Partitions.WORK,
        retention_ms=7 * DAY_MS,
        writers="inference",
        readers="retrain",
        meaning="The terminal records of shadow copies, to be compared with what clients got.",
        max_message_bytes=MAX_REQUEST_RECORD_BYTES,
    ),
    Topic(
        "replies",
        key="request id",
        record=response_pb2.GenerateResponse,
        partitions=Partitions.REPLY,
        retention_ms=10 * MINUTE_MS,
        writers="inference",
        readers="the ingest instance that owns the partition",
        meaning="The terminal record again, for a caller who waits; read committed.",
        max_message_bytes=MAX_REQUEST_RECORD_BYTES,
    ),
    Topic(
        "tokens",
        key="request id",
        record=response_pb2.TokenChunk,
        partitions=Partitions.REPLY,
        retention_ms=10 * MINUTE_MS,
        writers="inference",
        readers="the ingest instance that owns the partition",
        meaning="Text as it is made; best effort, outside transactions.",
    ),
    Topic(
        "usage",
        key="tenant",
        record=usage_pb2.UsageLine,
        partitions=Partitions.WORK,
        retention_ms=None,
        writers="inference, retrain",
        readers="cost",
        meaning="The ledger's source of truth, written with the response; read committed.",
    ),
    Topic(
        "feedback",
        key="the request's key",
        record=feedback_pb2.Feedback,
        partitions=Partitions.WORK,
        retention_ms=30 * DAY_MS,
        writers="ingest",
        readers="drift, retrain",
        meaning="Labels, scores, corrections and business values for responses.",
    ),
    Topic(
        "control",
        key="request id, or what a command is about",
        record=control_pb2.Control,
        partitions=Partitions.WORK,
        retention_ms=DAY_MS,
        writers="ingest, drift, inference, `penstock consumers`, `penstock models`",
        readers="every pump of inference, ingest, cost, drift, retrain",
        meaning="Cancellations, resumptions of stopped consumers, measures about models.",
    ),
    Topic(
        "signals",
        key="model/variant/segment",
        record=drift_pb2.SignalRecord,
        partitions=Partitions.WORK,
        retention_ms=7 * DAY_MS,
        writers="drift",
        readers="drift",
        meaning="Values drawn from requests, responses and feedback, and the ticks between them.",
    ),
    Topic(
        "evidence",
        key="partition of `signals`",
        record=drift_pb2.Evidence,
        partitions=Partitions.ONE,
        retention_ms=7 * DAY_MS,
        writers="drift",
        readers="drift",
        meaning="What each partition's detectors say at the end of a tick, for the one judge.",
    ),
    Topic(
        "drift_state",
        key="model/variant/segment",
        record=None,
        partitions=Partitions.WORK,
        retention_ms=None,
        writers="drift",
        readers="drift",
        meaning="The detectors' state by partition of `signals`; JSON.",
        compacted=True,
    ),
    Topic(
        "judge_state",
        key="what it is the state of",
        record=None,
        partitions=Partitions.ONE,
        retention_ms=None,
        writers="drift",
        readers="drift",
        meaning="Open findings and incidents; JSON.",
        compacted=True,
    ),
    Topic(
        "policies",
        key="the policy's name",
        record=drift_pb2.PolicyVersion,
        partitions=Partitions.ONE,
        retention_ms=None,
        writers="`penstock drift policy`",
        readers="drift",
        meaning="What drift looks for, and what it does about it.",
        compacted=True,
    ),
    Topic(
        "drift",
        key="model/variant",
        record=drift_pb2.DriftEvent,
        partitions=Partitions.ONE,
        retention_ms=30 * DAY_MS,
        writers="drift",
        readers="drift, retrain",
        meaning="Changes that a detector found, for machines.",
    ),
    Topic(
        "alerts",
        key="incident id",
        record=alert_pb2.Alert,
        partitions=Partitions.ONE,
        retention_ms=30 * DAY_MS,
        writers="every service",
        readers="ingest, drift, people on call",
        meaning="Incidents opened, updated and resolved; JSON, for people.",
    ),
    Topic(
        "alert_actions",
        key="incident or silence id",
        record=alert_pb2.AlertAction,
        partitions=Partitions.ONE,
        retention_ms=30 * DAY_MS,
        writers="`penstock alerts`",
        readers="drift, people on call",
        meaning="Acknowledgements and silences.",
    ),
    Topic(
        "routes",
        key="model",
        record=route_pb2.Route,
        partitions=Partitions.ONE,
        retention_ms=None,
        writers="`penstock routes`, drift, retrain",
        readers="ingest, inference, drift, retrain",
        meaning="The desired state of serving: each model's variants and weights.",
        compacted=True,
    ),
    Topic(
        "jobs",
        key="job id",
        record=job_pb2.JobUpdate,
        partitions=Partitions.ONE,
        retention_ms=30 * DAY_MS,
        writers="retrain",
        readers="retrain, people on call",
        meaning="What happens to retraining jobs: every transition, and progress in between.",
    ),
    Topic(
        "budgets",
        key="tenant",
        record=budget_pb2.Budget,
        partitions=Partitions.ONE,
        retention_ms=None,
        writers="cost (not yet)",
        readers="ingest (not yet)",
        meaning="What each tenant may spend.",
        compacted=True,
    ),
    Topic(
        "dlq",
        key="the original key",
        record=None,
        partitions=Partitions.ONE,
        retention_ms=30 * DAY_MS,
        writers="every service, `penstock dlq`",
        readers="people on call",
        meaning="Records that could not be handled: the original bytes, and why, where, how often.",
        max_message_bytes=MAX_REQUEST_RECORD_BYTES + 64 * 1024,
    ),
)

_BY_NAME = {topic.name: topic for topic in TOPICS}


def topic_of(name: str) -> Topic:
    """The declaration of a topic by its name without prefix.

    Raises:
        KeyError: There is no such topic; the message lists those there are.
    """
    try:
        return _BY_NAME[name]
    except KeyError:
        raise KeyError(f"no topic {name!r}; there are {', '.join(sorted(_BY_NAME))}") from None
