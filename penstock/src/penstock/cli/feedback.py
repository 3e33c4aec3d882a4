"""`penstock feedback`: what somebody thought of a response."""

from __future__ import annotations

from typing import Annotated

import typer

from penstock.cli import options
from penstock.cli.run import CliError, run
from penstock.cli.settings import CliSettings
from penstock.rpc.channel import open_channel
from penstock.v1 import feedback_pb2
from penstock.v1.inference_service_pb2_grpc import InferenceStub

__all__ = ["build", "feedback"]

CALL_S = 20.0


def feedback(
    request_id: Annotated[str, typer.Argument(help="The id that the response carries.")],
    label: Annotated[str | None, typer.Option(help="The right answer's class.")] = None,
    score: Annotated[float | None, typer.Option(min=0, max=1, help="1 is best.")] = None,
    correction: Annotated[str | None, typer.Option(help="What the text should have been.")] = None,
    value: Annotated[
        float | None,
        typer.Option(help="What the answer was worth, from -1e9 to 1e9; alone or beside the rest."),
    ] = None,
    unit: Annotated[str, typer.Option(help="Of --value: EUR, minutes.")] = "",
    comment: Annotated[str, typer.Option(help="A remark for people.")] = "",
    tenant: options.Tenant = None,
) -> None:
    """Record a label, a score, a correction or a value for a response; print the feedback's id.

    Sending the same feedback again gives the same id and is counted once.
    """

    async def body(settings: CliSettings) -> None:
        message = build(request_id, label, score, correction, value=value, unit=unit)
        message.comment = comment
        message.tenant = tenant or ""
        async with open_channel(settings.ingest_address) as channel:
            sent = await InferenceStub(channel).SendFeedback(message, timeout=CALL_S)
        typer.echo(sent.feedback_id)

    run(body)


def build(
    request_id: str,
    label: str | None,
    score: float | None,
    correction: str | None,
    *,
    value: float | None = None,
    unit: str = "",
) -> feedback_pb2.Feedback:
    """Feedback with its one opinion, and with what the answer was worth.

    Raises:
        CliError: It says nothing, or holds two opinions, or a unit of nothing.
    """
    given = [each for each in (label, score, correction) if each is not None]
    if len(given) > 1 or (not given and value is None):
        raise CliError("give one of --label, --score and --correction, or --value")
    if unit and value is None:
        raise CliError("--unit goes with --value")
    message = feedback_pb2.Feedback(request_id=request_id, value_unit=unit)
    if value is not None:
        message.business_value = value
    if label is not None:
        message.label = label
    elif score is not None:
        message.score = score
    elif correction is not None:
        message.correction = correction
    return message
