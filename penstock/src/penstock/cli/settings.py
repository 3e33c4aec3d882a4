"""What the command reads from the environment; options win over it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from penstock.settings import SettingsError

__all__ = ["CliSettings"]


class CliSettings(BaseSettings):
    """Where the stack is.

    Unlike a service's settings it leaves alone what it does not know: the command runs in the
    same environment as every service.
    """

    model_config = SettingsConfigDict(frozen=True, populate_by_name=True)

    kafka_bootstrap: str = Field("127.0.0.1:9092", validation_alias="PENSTOCK_KAFKA_BOOTSTRAP")
    topic_prefix: str = Field("penstock", validation_alias="PENSTOCK_TOPIC_PREFIX")
    ingest_host: str = Field("127.0.0.1", validation_alias="PENSTOCK_INGEST_HOST")
    ingest_grpc_port: int = Field(9100, validation_alias="PENSTOCK_INGEST_GRPC_PORT")
    cost_host: str = Field("127.0.0.1", validation_alias="PENSTOCK_COST_HOST")
    cost_grpc_port: int = Field(9140, validation_alias="PENSTOCK_COST_GRPC_PORT")
    drift_host: str = Field("127.0.0.1", validation_alias="PENSTOCK_DRIFT_HOST")
    drift_grpc_port: int = Field(9130, validation_alias="PENSTOCK_DRIFT_GRPC_PORT")
    prices: Path = Field(Path("compose/prices.json"), validation_alias="PENSTOCK_COST_PRICES")
    work_partitions: int = Field(4, ge=1, validation_alias="PENSTOCK_CLI_WORK_PARTITIONS")
    reply_partitions: int = Field(1, ge=1, validation_alias="PENSTOCK_CLI_REPLY_PARTITIONS")
    replication_factor: int = Field(1, ge=1, validation_alias="PENSTOCK_CLI_REPLICATION_FACTOR")

    @classmethod
    def load(cls, **overrides: Any) -> Self:
        """Reads the environment.

        Raises:
            SettingsError: A variable's value is not allowed; names all of them.
        """
        try:
            return cls(**overrides)
        except ValidationError as error:
            lines = [f"{e['loc'][0]}: {e['msg']} (it is {e['input']!r})" for e in error.errors()]
            raise SettingsError("\n".join(lines)) from error

    @property
    def ingest_address(self) -> str:
        """Where ingest's gRPC door listens."""
        return f"{self.ingest_host}:{self.ingest_grpc_port}"

    @property
    def cost_address(self) -> str:
        """Where the ledger's gRPC door listens."""
        return f"{self.cost_host}:{self.cost_grpc_port}"

    @property
    def drift_address(self) -> str:
        """Where drift's gRPC door listens."""
        return f"{self.drift_host}:{self.drift_grpc_port}"

    def topic(self, name: str) -> str:
        """A topic's full name."""
        return f"{self.topic_prefix}.{name}"
