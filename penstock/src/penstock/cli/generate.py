"""`penstock generate`: an answer over gRPC, at once or as it is made."""

from __future__ import annotations

import zlib
from typing import Annotated

import grpc
import typer

from penstock.cli import options, requests
from penstock.cli.run import CliError, err, run
from penstock.cli.settings import CliSettings
from penstock.codec import to_json
from penstock.rpc.channel import open_channel
from penstock.v1 import request_pb2, response_pb2
from penstock.v1.inference_service_pb2_grpc import InferenceStub

__all__ = ["generate"]


def generate(
    message: Annotated[
        list[str] | None, typer.Argument(metavar="[MESSAGE]...", help="Turns: text or role:text.")
    ] = None,
    prompt: options.Prompt = None,
    model: options.Model = None,
    tenant: options.Tenant = None,
    max_tokens: options.MaxTokens = None,
    temperature: options.Temperature = None,
    idempotency_key: options.IdempotencyKey = None,
    stream: Annotated[bool, typer.Option("--stream", help="Print text as it is made.")] = False,
    timeout_s: Annotated[float, typer.Option(min=0.1, help="The request's deadline.")] = 60.0,
    as_json: options.Json = False,
) -> None:
    """Ask a model and print its answer; what it cost goes to standard error."""

    async def body(settings: CliSettings) -> None:
        request = requests.build(
            messages=message or (),
            prompt=prompt,
            model=model,
            max_tokens=max_tokens,
            temperature=temperature,
        )
        request.tenant = tenant or ""
        request.idempotency_key = idempotency_key or ""
        request.timeout.FromMilliseconds(int(timeout_s * 1000))
        async with open_channel(settings.ingest_address) as channel:
            if stream:
                response = await _stream(channel, request, timeout_s, quiet=as_json)
            else:
                stub = InferenceStub(channel)
                response = await stub.Generate(request, timeout=timeout_s)
        if as_json:
            typer.echo(to_json(response))
        elif not stream:
            typer.echo(response.text)
        err.print(_summary(response), style="dim")

    run(body)


async def _stream(
    channel: grpc.aio.Channel,
    request: request_pb2.GenerateRequest,
    timeout_s: float,
    *,
    quiet: bool,
) -> response_pb2.GenerateResponse:
    shown = ""
    async for event in InferenceStub(channel).GenerateStream(request, timeout=timeout_s):
        if event.WhichOneof("event") == "response":
            response: response_pb2.GenerateResponse = event.response
            if not quiet:
                # Chunks are best effort: what did not arrive is in the response.
                goes_on = response.text.startswith(shown)
                typer.echo(response.text[len(shown) :] if goes_on else f"\n{response.text}")
            return response
        text = event.chunk.text
        if zlib.crc32((shown + text).encode()) != event.chunk.text_crc32:
            continue  # a chunk before it was lost; the response completes the text
        shown += text
        if not quiet:
            typer.echo(text, nl=False)
    raise CliError("the stream ended without a response; ask again with the same idempotency key")


def _summary(response: response_pb2.GenerateResponse) -> str:
    usage, timings = response.usage, response.timings
    return (
        f"{response.request_id}  {response.variant}  {usage.prompt_tokens} + "
        f"{usage.completion_tokens} tokens  first after {timings.first_token_s * 1000:.0f} ms  "
        f"total {timings.total_s * 1000:.0f} ms"
    )
