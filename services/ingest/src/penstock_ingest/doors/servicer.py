"""The gRPC door: wire to desk and back. Errors become statuses in the kit's interceptor."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator
from typing import TypeAlias

import grpc

from penstock.errors import InvalidRequest
from penstock.v1 import (
    feedback_pb2,
    inference_service_pb2,
    inference_service_pb2_grpc,
    request_pb2,
    response_pb2,
)
from penstock_ingest import metrics
from penstock_ingest.admission.pipeline import tenant_of
from penstock_ingest.desk import Desk, answered
from penstock_ingest.waiting.waiters import Piece

__all__ = ["SERVICE_NAME", "InferenceServicer"]

SERVICE_NAME = "penstock.v1.Inference"
ServicerContext: TypeAlias = "grpc.aio.ServicerContext[object, object]"


class InferenceServicer(inference_service_pb2_grpc.InferenceServicer):
    """Serves `penstock.v1.Inference`."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def Generate(  # noqa: N802 - the contract's name, as below
        self, request: request_pb2.GenerateRequest, context: ServicerContext
    ) -> response_pb2.GenerateResponse:
        """Answers when the response is committed."""
        started = time.perf_counter()
        with await self._desk.open(
            request, door="grpc", stream=False, call_left_s=context.time_remaining()
        ) as caller:
            response = await caller.response()
        _count(response, started)
        return answered(response)

    async def GenerateStream(  # noqa: N802
        self, request: request_pb2.GenerateRequest, context: ServicerContext
    ) -> AsyncIterator[inference_service_pb2.GenerateStreamResponse]:
        """Sends text as it is made, then the committed response.

        The chunks' texts put together are the response's text: what was lost on the way is sent
        as a last chunk.
        """
        started = time.perf_counter()
        with await self._desk.open(
            request, door="grpc", stream=True, call_left_s=context.time_remaining()
        ) as caller:
            while True:
                event = await caller.next()
                if not isinstance(event, Piece):
                    break
                yield inference_service_pb2.GenerateStreamResponse(
                    chunk=_chunk(caller.request_id, event)
                )
        _count(event, started)
        yield inference_service_pb2.GenerateStreamResponse(response=answered(event))

    async def Submit(  # noqa: N802
        self, request: request_pb2.GenerateRequest, context: ServicerContext
    ) -> inference_service_pb2.SubmitResponse:
        """Returns once the request is on the log."""
        request_id = await self._desk.submit(request)
        return inference_service_pb2.SubmitResponse(request_id=request_id)

    async def GetResponse(  # noqa: N802
        self, request: inference_service_pb2.GetResponseRequest, context: ServicerContext
    ) -> response_pb2.GenerateResponse:
        """The terminal record of a request, whatever its outcome."""
        if not request.request_id:
            raise InvalidRequest("name the request", field="request_id")
        if not (math.isfinite(request.wait_s) and request.wait_s >= 0):
            raise InvalidRequest("it must be a number of seconds from 0", field="wait_s")
        return await self._desk.response(
            request.request_id, tenant_of(request), wait_s=request.wait_s
        )

    async def Cancel(  # noqa: N802
        self, request: inference_service_pb2.CancelRequest, context: ServicerContext
    ) -> inference_service_pb2.CancelResponse:
        """Returns once the cancellation is on the log."""
        if not request.request_id:
            raise InvalidRequest("name the request", field="request_id")
        await self._desk.cancel(request.request_id, tenant_of(request))
        return inference_service_pb2.CancelResponse()

    async def SendFeedback(  # noqa: N802
        self, request: feedback_pb2.Feedback, context: ServicerContext
    ) -> inference_service_pb2.SendFeedbackResponse:
        """Records what somebody thought of a response."""
        feedback_id = await self._desk.feedback(request)
        return inference_service_pb2.SendFeedbackResponse(feedback_id=feedback_id)

    async def ListModels(  # noqa: N802
        self, request: inference_service_pb2.ListModelsRequest, context: ServicerContext
    ) -> inference_service_pb2.ListModelsResponse:
        """The models that requests may name."""
        return inference_service_pb2.ListModelsResponse(
            models=[
                inference_service_pb2.Model(
                    name=route.model,
                    route_version=route.version,
                    variants=[variant.name for variant in route.variants],
                )
                for route in self._desk.models()
            ]
        )


def _chunk(request_id: str, piece: Piece) -> response_pb2.TokenChunk:
    return response_pb2.TokenChunk(
        request_id=request_id,
        attempt=piece.attempt,
        index=piece.index,
        tokens=piece.tokens,
        text=piece.text,
        text_crc32=piece.crc32,
    )


def _count(response: response_pb2.GenerateResponse, started: float) -> None:
    outcome = response_pb2.Outcome.Name(response.outcome).removeprefix("OUTCOME_").lower()
    metrics.ANSWERS.labels("grpc", outcome).inc()
    metrics.WAIT_SECONDS.labels("grpc").observe(time.perf_counter() - started)
