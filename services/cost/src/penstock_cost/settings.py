"""The settings of cost, each declared once."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator
from pydantic_settings import SettingsConfigDict

from penstock.settings import Settings

__all__ = ["CostSettings"]

DEFAULT_DATABASE_URL = "sqlite:///.penstock/cost.sqlite"


class CostSettings(Settings):
    """What cost reads from the environment, under `PENSTOCK_COST_`."""

    model_config = SettingsConfigDict(env_prefix="PENSTOCK_COST_")

    host: str = Field("127.0.0.1", description="Address that gRPC and metrics bind.")
    grpc_port: int = Field(9140, ge=0, description="Port of penstock.v1.Cost; 0 takes a free one.")
    metrics_port: int = Field(9141, ge=0, description="Port of /metrics; 0 serves none.")
    database_url: str = Field(
        "", description=f"SQLAlchemy's URL of the ledger; empty takes {DEFAULT_DATABASE_URL}."
    )
    prices: Path = Field(Path("compose/prices.json"), description="The price table, JSON.")
    max_batch: int = Field(500, ge=1, description="Usage lines in one SQL transaction at most.")

    @field_validator("database_url")
    @classmethod
    def _default_database(cls, value: str) -> str:
        return value or DEFAULT_DATABASE_URL
