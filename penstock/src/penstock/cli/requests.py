"""Requests from what a person types or pipes in: pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from google.protobuf import json_format

from penstock.cli.run import CliError
from penstock.v1 import request_pb2

__all__ = ["build", "from_lines"]


def from_lines(lines: Iterable[str]) -> Iterator[request_pb2.GenerateRequest]:
    """One request for each line of JSON; blank lines are passed over.

    Raises:
        CliError: A line is no GenerateRequest; says which and why.
    """
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            yield json_format.Parse(line, request_pb2.GenerateRequest())
        except json_format.ParseError as error:
            raise CliError(f"line {number} is not a GenerateRequest: {error}") from error


def build(
    *,
    messages: Iterable[str] = (),
    prompt: str | None = None,
    model: str | None = None,
    max_tokens: int | None = None,
    temperature: float | None = None,
) -> request_pb2.GenerateRequest:
    """A request from options.

    Args:
        messages: Turns as `role:content`; without a known role the user's.
        prompt: A text to continue as it is, instead of messages.
        model: The route's name.
        max_tokens: The longest answer.
        temperature: 0 is greedy.

    Raises:
        CliError: There are neither messages nor a prompt, or both.
    """
    turns = [_turn(message) for message in messages]
    if bool(turns) == bool(prompt):
        raise CliError("give either messages or --prompt")
    request = request_pb2.GenerateRequest(messages=turns, prompt=prompt or "", model=model or "")
    if max_tokens is not None:
        request.sampling.max_tokens = max_tokens
    if temperature is not None:
        request.sampling.temperature = temperature
    return request


def _turn(message: str) -> request_pb2.ChatMessage:
    role, colon, content = message.partition(":")
    if colon and role in ("system", "user", "assistant", "tool"):
        return request_pb2.ChatMessage(role=role, content=content.strip())
    return request_pb2.ChatMessage(role="user", content=message)
