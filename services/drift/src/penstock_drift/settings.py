"""The settings of drift, each declared once."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from penstock.settings import Settings

__all__ = ["DriftSettings"]


class DriftSettings(Settings):
    """What drift reads from the environment, under `PENSTOCK_DRIFT_`."""

    model_config = SettingsConfigDict(env_prefix="PENSTOCK_DRIFT_")

    host: str = Field("127.0.0.1", description="Address that metrics bind.")
    metrics_port: int = Field(9131, ge=0, description="Port of /metrics; 0 serves none.")
    adwin_delta: float = Field(
        0.002, gt=0, lt=1, description="ADWIN's confidence: smaller fires later and errs less."
    )
    max_keys: int = Field(
        1000, ge=1, description="Detectors, one per model, variant and signal; more are refused."
    )
    max_batch: int = Field(200, ge=1, description="Responses that are looked at together at most.")
