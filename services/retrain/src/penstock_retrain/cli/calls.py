"""How the commands reach the service."""

from __future__ import annotations

import contextlib
import getpass
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer
from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from penstock.rpc.channel import open_channel
from penstock.settings import SettingsError
from penstock.v1.rollouts_service_pb2_grpc import RolloutsStub

if TYPE_CHECKING:
    from penstock.v1.rollouts_service_pb2_grpc import RolloutsAsyncStub

__all__ = ["CALL_S", "JobId", "Model", "Reason", "operator", "rollouts"]

CALL_S = 20.0

JobId = Annotated[str, typer.Argument(metavar="JOB", help="Its id: see penstock jobs list.")]
Model = Annotated[str, typer.Argument(metavar="MODEL", help="The name that requests use.")]
Reason = Annotated[str, typer.Option(help="Why, for the record.")]


class _Where(BaseSettings):
    model_config = SettingsConfigDict(frozen=True, populate_by_name=True)

    host: str = Field("127.0.0.1", validation_alias="PENSTOCK_RETRAIN_HOST")
    grpc_port: int = Field(9150, validation_alias="PENSTOCK_RETRAIN_GRPC_PORT")

    @classmethod
    def load(cls, **overrides: Any) -> Self:
        """Reads the environment."""
        try:
            return cls(**overrides)
        except ValidationError as error:
            lines = [f"{e['loc'][0]}: {e['msg']} (it is {e['input']!r})" for e in error.errors()]
            raise SettingsError("\n".join(lines)) from error


@contextlib.asynccontextmanager
async def rollouts() -> AsyncIterator[RolloutsAsyncStub]:
    """A stub of `penstock.v1.Rollouts` while the context lasts."""
    where = _Where.load()
    async with open_channel(f"{where.host}:{where.grpc_port}") as channel:
        yield RolloutsStub(channel)


def operator() -> str:
    """Who types; empty where the system has no name for them."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""
