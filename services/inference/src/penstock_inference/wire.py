"""Contracts to the domain's types and back."""

from __future__ import annotations

from google.protobuf import json_format

from penstock.errors import PenstockError
from penstock.v1 import admitted_pb2, common_pb2, engine_service_pb2, response_pb2
from penstock_inference.generation import Completion, Finish, Generation, Message, Passage

__all__ = ["failure_of", "generation_of", "result_of"]

_FINISH = {
    Finish.STOP: response_pb2.FINISH_REASON_STOP,
    Finish.LENGTH: response_pb2.FINISH_REASON_LENGTH,
}


def generation_of(admitted: admitted_pb2.AdmittedRequest) -> Generation:
    """The work that an admitted request stands for; admission has filled in every default."""
    request = admitted.request
    sampling = request.sampling
    return Generation(
        request_id=admitted.request_id,
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
        schema=(
            json_format.MessageToDict(request.response_schema)
            if request.HasField("response_schema")
            else None
        ),
        priority=request.priority,
        stream=admitted.stream,
    )


def result_of(completion: Completion, generation_s: float) -> engine_service_pb2.WorkResult:
    """An answer as it goes back to the pump."""
    drawn = completion.log_probabilities
    summary = response_pb2.LogProbabilitySummary(
        mean=sum(drawn) / len(drawn) if drawn else 0.0,
        minimum=min(drawn, default=0.0),
        tokens=len(drawn),
    )
    return engine_service_pb2.WorkResult(
        text=completion.text,
        finish_reason=_FINISH[completion.finish],
        usage=common_pb2.Usage(
            prompt_tokens=completion.prompt_tokens,
            completion_tokens=completion.completion_tokens,
            cached_prompt_tokens=completion.cached_prompt_tokens,
        ),
        log_probabilities=summary if drawn else None,
        first_token_s=completion.first_token_s,
        generation_s=generation_s,
    )


def failure_of(error: PenstockError) -> engine_service_pb2.WorkResult:
    """An error as it goes back to the pump."""
    return engine_service_pb2.WorkResult(error=error.to_proto())
