"""`penstock cancel`: ends a request that has not ended."""

from __future__ import annotations

from typing import Annotated

import typer

from penstock.cli import options
from penstock.cli.run import CliError, run
from penstock.cli.settings import CliSettings
from penstock.identity import id_of_key
from penstock.rpc.channel import open_channel
from penstock.v1 import inference_service_pb2
from penstock.v1.inference_service_pb2_grpc import InferenceStub

__all__ = ["cancel"]

CALL_S = 20.0
DEFAULT_TENANT = "default"


def cancel(
    request_id: Annotated[
        str, typer.Argument(help="The request's id, as it was admitted or submitted.")
    ] = "",
    idempotency_key: Annotated[
        str, typer.Option(help="What its client named it, instead of the id.")
    ] = "",
    tenant: options.Tenant = None,
) -> None:
    """End a request that has not ended, however it came in.

    The request's response tells whether it came in time. A request that has ended stays as it is.
    """

    async def body(settings: CliSettings) -> None:
        if bool(request_id) == bool(idempotency_key):
            raise CliError("give either REQUEST_ID or --idempotency-key")
        query = inference_service_pb2.CancelRequest(
            request_id=request_id or id_of_key(tenant or DEFAULT_TENANT, idempotency_key),
            tenant=tenant or "",
        )
        async with open_channel(settings.ingest_address) as channel:
            await InferenceStub(channel).Cancel(query, timeout=CALL_S)

    run(body)
