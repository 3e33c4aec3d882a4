"""Contracts to the domain's types and back."""

from __future__ import annotations

from typing import Any

from google.protobuf import json_format

from penstock.errors import Code, InvalidRequest, PenstockError
from penstock.v1 import engine_service_pb2, request_pb2, response_pb2
from penstock_inference.engines.generation import Completion, Finish, Generation, Message, Passage

__all__ = ["MESSAGE_INTERVAL_S", "failure_of", "generation_of", "write_result"]

# From message to message between pump and engine: one costs more than a few events in it.
MESSAGE_INTERVAL_S = 0.004

_FINISH = {
    Finish.STOP: response_pb2.FINISH_REASON_STOP,
    Finish.LENGTH: response_pb2.FINISH_REASON_LENGTH,
    Finish.CANCELLED: response_pb2.FINISH_REASON_ABORTED,
}


def generation_of(item: engine_service_pb2.WorkItem) -> Generation:
    """The generation that a work item stands for; admission has filled in every default.

    Raises:
        InvalidRequest: Its schema holds what JSON does not.
    """
    admitted = item.request
    request = admitted.request
    sampling = request.sampling
    return Generation(
        # The work's own id: another run of the request may still be leaving the engine.
        request_id=item.work_id,
        messages=tuple(Message(m.role, m.content) for m in request.messages),
        prompt=request.prompt,
        passages=tuple(Passage(c.id or c.source, c.text) for c in request.contexts),
        max_tokens=sampling.max_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p if sampling.HasField("top_p") else 1.0,
        top_k=sampling.top_k,
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
        stop=tuple(sampling.stop),
        seed=sampling.seed,
        schema=_schema(request) if request.HasField("response_schema") else None,
        priority=request.priority,
        stream=admitted.stream,
        adapter=item.adapter,
        system_prompt=item.system_prompt,
        cache_salt=item.cache_salt,
        attempt=item.attempt,
    )


def _schema(request: request_pb2.GenerateRequest) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json_format.MessageToDict(request.response_schema)
    except ValueError as error:
        raise InvalidRequest(
            "a schema holds JSON: no NaN, nothing infinite", field="response_schema"
        ) from error
    return found


def write_result(
    result: engine_service_pb2.WorkResult, completion: Completion, generation_s: float
) -> None:
    """Fills in how a generation ended. One that was cancelled has usage and an error, no text."""
    result.finish_reason = _FINISH[completion.finish]
    result.generation_s = generation_s
    result.first_token_s = completion.first_token_s
    usage = result.usage
    usage.prompt_tokens = completion.prompt_tokens
    usage.completion_tokens = completion.completion_tokens
    usage.cached_prompt_tokens = completion.cached_prompt_tokens
    if completion.finish is Finish.CANCELLED:
        result.error.code = Code.ERROR_CODE_CANCELLED
        result.error.message = "the request was cancelled before its answer was complete"
        return
    result.text = completion.text
    if drawn := completion.log_probabilities:
        summary = result.log_probabilities
        summary.mean = sum(drawn) / len(drawn)
        summary.minimum = min(drawn)
        summary.tokens = len(drawn)


def failure_of(error: PenstockError) -> engine_service_pb2.WorkResult:
    """An error as it goes back to the pump."""
    return engine_service_pb2.WorkResult(error=error.to_proto())
