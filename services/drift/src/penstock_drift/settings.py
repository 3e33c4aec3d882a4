"""The settings of drift, each declared once."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from penstock.settings import Settings

__all__ = ["DriftSettings"]


class DriftSettings(Settings):
    """What drift reads from the environment, under `PENSTOCK_DRIFT_`."""

    model_config = SettingsConfigDict(env_prefix="PENSTOCK_DRIFT_")

    host: str = Field("127.0.0.1", description="Address that metrics and the gRPC door bind.")
    metrics_port: int = Field(9131, ge=0, description="Port of /metrics; 0 serves none.")
    grpc_port: int = Field(9130, ge=0, description="Port of the gRPC door; 0 takes a free one.")
    alertmanager_url: str = Field(
        "",
        description="Alertmanagers to be told of incidents, separated by commas; empty for none.",
    )
    alertmanager_repeat_s: float = Field(
        60, gt=0, description="How often Alertmanager is told again what is open."
    )
    max_batch: int = Field(2000, ge=1, description="Records that are folded together at most.")
    save_s: float = Field(
        10, gt=0, description="How often detectors' state is written while there is traffic."
    )
    request_ttl_s: float = Field(
        300,
        gt=0,
        description="How long before its response a request may lie in `admitted` to be joined.",
    )
    feedback_ttl_s: float = Field(
        3600, gt=0, description="How long after a response its feedback still counts."
    )
    join_bytes: int = Field(
        64 * 1024 * 1024,
        ge=1024 * 1024,
        description="Memory for what a join remembers, per partition; the oldest go first.",
    )
    prices: Path = Field(
        Path("compose/prices.json"),
        description="The price table, JSON, for the signal `cost`; without it costs are not drawn.",
    )
