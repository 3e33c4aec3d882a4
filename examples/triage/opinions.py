"""Right answers as feedback, as somebody sends them who reads responses from Kafka."""

from __future__ import annotations

import asyncio
import json
import time

import grpc

from examples.triage.generate import Ticket
from penstock.v1 import feedback_pb2
from penstock.v1.inference_service_pb2_grpc import InferenceStub

__all__ = ["give_label"]

CALL_S = 20.0
# ingest reads responses from Kafka as well, and may come to one a moment later.
PATIENCE_S = 10.0
AGAIN_S = 0.2


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
