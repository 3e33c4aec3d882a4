"""`penstock publish`: requests onto the log, as any producer would write them."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Sequence
from typing import Annotated

import typer

from penstock.cli import options, requests
from penstock.cli.log import publisher, reading, require_topic
from penstock.cli.run import CliError, err, read_text, run
from penstock.cli.settings import CliSettings
from penstock.codec import decode, encode, to_json
from penstock.errors import InvalidRequest
from penstock.jsonlines import split_lines
from penstock.kafka.reader import Start
from penstock.records import Outgoing, Record
from penstock.v1 import request_pb2, response_pb2

__all__ = ["publish"]

Key = tuple[str, str]


def publish(
    file: Annotated[
        str | None,
        typer.Argument(metavar="[FILE|-]", help="JSON lines of penstock.v1.GenerateRequest."),
    ] = None,
    message: Annotated[
        list[str] | None, typer.Option("--message", "-m", help="A turn, as text or role:text.")
    ] = None,
    prompt: options.Prompt = None,
    model: options.Model = None,
    tenant: options.Tenant = None,
    key: Annotated[
        str | None, typer.Option(help="Requests that share it are answered in order.")
    ] = None,
    encoding: Annotated[
        options.EncodingName, typer.Option(help="How the records are written.")
    ] = options.EncodingName.JSON,
    wait: Annotated[bool, typer.Option("--wait", help="Print the responses as they come.")] = False,
    timeout_s: Annotated[float, typer.Option(min=0, help="How long --wait waits.")] = 120.0,
) -> None:
    """Write requests to the `requests` topic.

    From a file or a pipe, one request a line in JSON, or a single one from --message or --prompt.
    A pipe is read when FILE is -. With --wait, every response is printed as JSON, and the exit
    code is 1 when one is missing or is no answer.
    """

    async def body(settings: CliSettings) -> None:
        if file is not None and (message or prompt or model):
            raise CliError("give either FILE or --message, --prompt and --model")
        if file is None and not (message or prompt):
            raise CliError("nothing to publish: give FILE, - for a pipe, --message or --prompt")
        batch = (
            [requests.build(messages=message or (), prompt=prompt, model=model)]
            if file is None
            else list(requests.from_lines(split_lines(read_text(file))))
        )
        for request in batch:
            complete(request, tenant=tenant, key=key, named=wait)
        topic = await require_topic(settings, "requests")
        records = [outgoing(request, topic, encoding) for request in batch]
        if wait:
            await _publish_and_wait(settings, batch, records, timeout_s)
            return
        async with publisher(settings) as to:
            await to.publish(records)
        err.print(f"{len(records)} published to {topic}")

    run(body)


def complete(
    request: request_pb2.GenerateRequest, *, tenant: str | None, key: str | None, named: bool
) -> None:
    """Fills in what the options say and the request leaves open.

    A request whose answer is waited for needs a name: it gets a random idempotency key.
    """
    if tenant and not request.tenant:
        request.tenant = tenant
    if key and not request.ordering_key:
        request.ordering_key = key
    if named and not request.idempotency_key:
        request.idempotency_key = f"cli-{uuid.uuid4().hex}"


def outgoing(
    request: request_pb2.GenerateRequest, topic: str, encoding: options.EncodingName
) -> Outgoing:
    """A request as a record, keyed by its ordering key, else by its own name."""
    return encode(
        request,
        topic=topic,
        key=request.ordering_key or request.idempotency_key or None,
        source="cli",
        encoding=encoding.encoding,
    )


async def _publish_and_wait(
    settings: CliSettings,
    batch: Sequence[request_pb2.GenerateRequest],
    records: Sequence[Outgoing],
    timeout_s: float,
) -> None:
    open_keys: set[Key] = {(r.tenant or "default", r.idempotency_key) for r in batch}
    # A record that ingest could not read is answered under its key alone.
    by_record_key = {
        written.key: (r.tenant or "default", r.idempotency_key)
        for written, r in zip(records, batch, strict=True)
        if not r.ordering_key
    }
    refused = 0
    done = asyncio.Event()

    def on_record(record: Record) -> None:
        nonlocal refused
        with contextlib.suppress(InvalidRequest):
            response = decode(record, response_pb2.GenerateResponse)
            key: Key | None = (response.tenant, response.idempotency_key)
            if not response.idempotency_key:
                key = by_record_key.get(record.key)
            if key in open_keys:
                open_keys.discard(key)
                refused += response.outcome != response_pb2.OUTCOME_ANSWERED
                typer.echo(to_json(response))
            if not open_keys:
                done.set()

    topic = await require_topic(settings, "responses")
    async with (
        reading(settings, topic, Start.END, on_record),
        publisher(settings) as to,
    ):
        await to.publish(records)
        try:
            await asyncio.wait_for(done.wait(), timeout_s)
        except TimeoutError:
            raise CliError(
                f"{len(open_keys)} of {len(batch)} not answered within {timeout_s:g} s; "
                "they still may be: see `penstock tail responses`"
            ) from None
    if refused:
        raise CliError(f"{refused} of {len(batch)} ended without an answer; each says why above")
