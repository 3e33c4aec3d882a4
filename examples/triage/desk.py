"""A help desk's part: tickets as requests on Kafka, and what would have been right as feedback."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from typing import Any

import grpc

from examples.triage.generate import Ticket
from penstock.codec import Encoding, encode
from penstock.records import Outgoing
from penstock.v1 import feedback_pb2, request_pb2
from penstock.v1.inference_service_pb2_grpc import InferenceStub

__all__ = ["answer_of", "give_label", "ticket_record"]

CALL_S = 20.0
# ingest reads responses from Kafka as well, and may come to one a moment later.
PATIENCE_S = 10.0
AGAIN_S = 0.2


def ticket_record(
    ticket: Ticket,
    *,
    topic: str,
    model: str,
    tenant: str,
    key: str,
    source: str,
    labels: Mapping[str, str] | None = None,
) -> Outgoing:
    """A ticket as a request, in JSON; the key is the record's and the idempotency key."""
    request = request_pb2.GenerateRequest(
        model=model,
        messages=[request_pb2.ChatMessage(role="user", content=ticket["text"])],
        sampling=request_pb2.SamplingParameters(temperature=0),
        idempotency_key=key,
        tenant=tenant,
        labels=labels,
        # An answer from the cache says nothing new of the model, and is not watched.
        no_cache=True,
    )
    return encode(request, topic=topic, key=key, source=source, encoding=Encoding.ENCODING_JSON)


def answer_of(text: str) -> Any:
    """An answer's JSON; None where it is none."""
    try:
        return json.loads(text)
    except ValueError:
        return None


async def give_label(stub: InferenceStub, request_id: str, tenant: str, ticket: Ticket) -> None:
    """Says what a ticket's right answer would have been.

    Raises:
        grpc.aio.AioRpcError: It was not taken.
    """
    label = json.dumps(ticket["expected"])
    opinion = feedback_pb2.Feedback(request_id=request_id, tenant=tenant, label=label)
    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            await stub.SendFeedback(opinion, timeout=CALL_S)
        except grpc.aio.AioRpcError as error:
            missing = error.code() is grpc.StatusCode.NOT_FOUND
            if not missing or time.monotonic() > deadline_s:
                raise
            await asyncio.sleep(AGAIN_S)
        else:
            return
