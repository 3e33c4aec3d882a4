"""The OpenAI-compatible protocol: a generation as a request, and answers as they come. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from penstock.errors import InvalidRequest, Unavailable
from penstock_inference.engines.generation import Completion, Finish, Generation
from penstock_inference.engines.models import UpstreamModel
from penstock_inference.engines.prompting import conversation

__all__ = ["Answer", "Events", "estimated_prompt_tokens", "parsed", "request_of"]

MOST_TOKENS = 2**32 - 1  # that the contract can say
BYTES_PER_TOKEN = 4  # a customary guess, where nobody tells

_FINISH = {
    "stop": Finish.STOP,
    "eos": Finish.STOP,
    "eos_token": Finish.STOP,
    "stop_sequence": Finish.STOP,
    "end_turn": Finish.STOP,
    "length": Finish.LENGTH,
    "max_tokens": Finish.LENGTH,
}


def request_of(generation: Generation, model: UpstreamModel) -> tuple[str, dict[str, Any]]:
    """The path and the body that ask for a generation.

    Raises:
        InvalidRequest: It asks for what the upstream cannot do; names the field.
    """
    turns = conversation(generation)
    if not turns and model.prompts == "chat":
        turns = [{"role": "user", "content": generation.prompt}]
    body: dict[str, Any] = {
        "model": _served(generation, model),
        "temperature": generation.temperature,
        "seed": generation.seed,
        "stream": generation.stream,
        # Chat takes a flag, completions the number of alternatives.
        "logprobs": True if turns else 1,
    }
    defaults = {"top_p": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
    body |= {
        name: getattr(generation, name)
        for name, default in defaults.items()
        if getattr(generation, name) != default
    }
    if turns:
        body |= {"messages": turns, model.max_tokens_field: generation.max_tokens}
    else:
        body |= {"prompt": generation.prompt, "max_tokens": generation.max_tokens}
    if generation.stop:
        body["stop"] = list(generation.stop)
    if generation.stream:
        body["stream_options"] = {"include_usage": True}
    _extend(body, generation, model)
    path = "/chat/completions" if turns else "/completions"
    return path, {name: value for name, value in body.items() if name not in model.omit}


def _served(generation: Generation, model: UpstreamModel) -> str:
    if not generation.adapter:
        return model.model
    if generation.adapter not in model.adapters:
        raise Unavailable(
            f"the upstream of {model.name} has no adapter {generation.adapter}: the operator has "
            "to declare it under `adapters`",
            retryable=False,
        )
    return model.adapters[generation.adapter]


def _extend(body: dict[str, Any], generation: Generation, model: UpstreamModel) -> None:
    """What not every server knows."""
    vllm = model.dialect == "vllm"
    if generation.schema is not None:
        if "prompt" in body and not vllm:
            raise InvalidRequest(
                f"{model.name} takes a schema with messages only: send messages, not a prompt",
                field="response_schema",
            )
        schema = {"name": "answer", "schema": dict(generation.schema), "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    if generation.top_k and not vllm:
        raise InvalidRequest(
            f"the upstream of {model.name} knows no top_k: leave it out", field="sampling.top_k"
        )
    if vllm:
        if generation.top_k:
            body["top_k"] = generation.top_k
        if generation.cache_salt:
            body["cache_salt"] = generation.cache_salt
        if generation.temperature == 0:
            del body["seed"]  # vLLM draws each request with a seed apart, here for nothing
        if generation.stream:
            body["stream_options"]["continuous_usage_stats"] = True


def estimated_prompt_tokens(generation: Generation) -> int:
    """A guess at a prompt's tokens, from its bytes."""
    turns = conversation(generation)
    texts = [turn["content"] for turn in turns] or [generation.prompt]
    return -(-sum(len(text.encode()) for text in texts) // BYTES_PER_TOKEN)


class Events:
    """The data of server-sent events, from bytes as they come (WHATWG HTML, 9.2.6)."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[str] = []

    def feed(self, received: bytes) -> Iterator[str]:
        """The data of each event that is complete now."""
        *lines, self._rest = (self._rest + received).split(b"\n")
        for raw in lines:
            line = raw.removesuffix(b"\r").decode(errors="replace")
            if line.startswith("data:"):
                self._data.append(line[5:].removeprefix(" "))
            elif not line and self._data:
                yield "\n".join(self._data)
                self._data.clear()


class Answer:
    """What of an answer has come, and what it took.

    Usage is what the upstream tells. Where it does not tell (yet), or tells what cannot be: of the
    answer, the tokens with log-probabilities, else one per event with text; of the prompt, a
    quarter of its bytes, once anything has come. A whole answer without usage counts a quarter of
    its bytes too.

    Args:
        prompt_tokens: What to count for the prompt where nobody tells.
    """

    def __init__(self, prompt_tokens: int) -> None:
        self._guess = prompt_tokens
        self.begin_again()

    def begin_again(self) -> None:
        """Forgets everything, for another attempt."""
        self._text: list[str] = []
        self._log_probabilities: list[float] = []
        self._usage: Mapping[str, Any] = {}
        self._counted = 0
        self._finish: str | None = None
        self._begun = False
        self.first_token_s = 0.0

    @property
    def has_text(self) -> bool:
        """Whether any of it was passed on."""
        return any(self._text)

    @property
    def finished(self) -> bool:
        """Whether the upstream said why it ended."""
        return self._finish is not None

    @property
    def used_tokens(self) -> int:
        """Tokens of prompt and answer so far."""
        return self._prompt_tokens + self._completion_tokens

    def add_chunk(self, chunk: Mapping[str, Any]) -> tuple[str, int]:
        """Takes one event of a stream in: its text and the number of its tokens."""
        self._begun = True
        before = self._completion_tokens
        self._hear(chunk)
        text = ""
        for choice in chunk.get("choices") or ():
            if choice.get("index", 0) != 0:
                continue
            delta = choice.get("delta") or {}
            text += choice.get("text") or delta.get("content") or delta.get("refusal") or ""
            # Tokens of a train of thought are paid for, but are no answer.
            thought = delta.get("reasoning_content") or delta.get("reasoning")
            drawn = _log_probabilities(choice)
            self._log_probabilities += drawn
            self._counted += len(drawn) or bool(text or thought)
            self._finish = choice.get("finish_reason") or self._finish
        self._text.append(text)
        return text, max(0, self._completion_tokens - before)

    def add_whole(self, document: Mapping[str, Any]) -> None:
        """Takes an answer in that came at once.

        Raises:
            KeyError, IndexError, TypeError: It is no answer.
        """
        self._begun = True
        self._hear(document)
        choice = document["choices"][0]
        message = choice.get("message") or {}
        text = choice.get("text") or message.get("content") or message.get("refusal") or ""
        self._text.append(text)
        self._log_probabilities += _log_probabilities(choice)
        guess = -(-len(text.encode()) // BYTES_PER_TOKEN)
        self._counted = len(self._log_probabilities) or guess
        self._finish = choice.get("finish_reason") or "stop"

    def end(self) -> None:
        """The stream ended in order; one that gave no reason stopped."""
        self._finish = self._finish or "stop"

    def completion(self) -> Completion:
        """The end of the generation.

        Raises:
            InvalidRequest: The upstream's filter took the answer away.
            Unavailable: It ended for a reason that is none here.
        """
        if self._finish == "content_filter":
            raise InvalidRequest("the upstream's content filter refuses to answer this")
        if self._finish not in _FINISH:
            raise Unavailable(f"the upstream ended the answer: {self._finish}", retryable=False)
        return self._completion(_FINISH[self._finish])

    def cancelled(self) -> Completion:
        """The end of a generation that was cancelled, with what was seen of it."""
        return self._completion(Finish.CANCELLED)

    def _completion(self, finish: Finish) -> Completion:
        details = self._usage.get("prompt_tokens_details") or {}
        return Completion(
            text="".join(self._text),
            finish=finish,
            prompt_tokens=self._prompt_tokens,
            completion_tokens=self._completion_tokens,
            cached_prompt_tokens=min(_told(details, "cached_tokens") or 0, self._prompt_tokens),
            log_probabilities=self._log_probabilities,
            first_token_s=self.first_token_s,
        )

    @property
    def _prompt_tokens(self) -> int:
        told = _told(self._usage, "prompt_tokens")
        if told is not None:
            return told
        return self._guess if self._begun else 0

    @property
    def _completion_tokens(self) -> int:
        told = _told(self._usage, "completion_tokens")
        return self._counted if told is None else told

    def _hear(self, document: Mapping[str, Any]) -> None:
        usage = document.get("usage")
        if isinstance(usage, Mapping):
            self._usage = usage


def _told(usage: Mapping[str, Any], name: str) -> int | None:
    """A count of tokens that can be one; None where the server says nothing that can."""
    told = usage.get(name)
    if not isinstance(told, int | float) or not 0 <= told <= MOST_TOKENS:
        return None
    return int(told)


def _log_probabilities(choice: Mapping[str, Any]) -> list[float]:
    found = choice.get("logprobs") or {}
    chat = [token.get("logprob") for token in found.get("content") or ()]
    return [
        float(value) for value in chat or found.get("token_logprobs") or () if value is not None
    ]


def parsed(data: str | bytes) -> Mapping[str, Any]:
    """A JSON object.

    Raises:
        Unavailable: It is none.
    """
    try:
        document = json.loads(data)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise Unavailable("the upstream sent no JSON object")
    return document
