"""The settings of ingest, each declared once."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from penstock.settings import Settings
from penstock.topics import MAX_REQUEST_RECORD_BYTES

__all__ = ["IngestSettings"]

MIB = 1024 * 1024


class IngestSettings(Settings):
    """What ingest reads from the environment, under `PENSTOCK_INGEST_`."""

    model_config = SettingsConfigDict(env_prefix="PENSTOCK_INGEST_")

    host: str = Field("127.0.0.1", description="Address that the doors and /metrics bind.")
    grpc_port: int = Field(9100, ge=0, description="Port of the gRPC door.")
    http_port: int = Field(8080, ge=0, description="Port of the OpenAI-compatible HTTP door.")
    metrics_port: int = Field(9101, ge=0, description="Port of /metrics; 0 serves none.")
    ordinal: int = Field(
        0, ge=0, description="The partition of `replies` and `tokens` that this instance owns."
    )
    kafka_door: bool = Field(True, description="Whether this instance admits from `requests`.")
    kafka_in_flight: int = Field(
        4000, ge=1, description="Records of `requests` read and not yet committed."
    )
    max_request_bytes: int = Field(
        MIB,
        ge=1024,
        # The admitted record, with what admission adds, has to fit into its topic.
        le=MAX_REQUEST_RECORD_BYTES // 2,
        description="The largest request, as a record's value, a message or a body.",
    )
    default_timeout_s: float = Field(
        600, gt=0, description="The deadline of a request that sets none."
    )
    max_timeout_s: float = Field(
        86_400, gt=0, le=86_400, description="The farthest deadline that a request may set."
    )
    default_max_tokens: int = Field(
        256, ge=1, description="Length of an answer where neither request nor variant bounds it."
    )
    max_waiting: int = Field(
        4096, ge=1, description="Requests whose callers wait here; more are refused."
    )
    max_queued_per_tenant: int = Field(
        20_000,
        ge=0,
        description="Requests that a tenant may have admitted and not ended; 0 for no bound.",
    )
    return_s: float = Field(
        0.3,
        ge=0,
        description="How long a request with an idempotency key goes on when its callers have "
        "left, for them to come back; others are cancelled at once.",
    )
    response_window_s: float = Field(
        3600, gt=0, description="How long an ended request can be fetched and rated here."
    )
    response_window_bytes: int = Field(
        64 * MIB, ge=MIB, description="Memory for those responses; the oldest go first."
    )
    probe_interval_s: float = Field(
        30, ge=0, description="Between synthetic requests to a variant that answers; 0 sends none."
    )
    probe_timeout_s: float = Field(
        10, gt=0, description="How long a synthetic request may take to be answered."
    )
    probe_failures: int = Field(
        3, ge=1, description="Unanswered synthetic requests in a row that make a variant not ready."
    )
    probe_patience_s: float = Field(
        600,
        ge=0,
        description="How long readiness waits at start for every model; then one that answers is "
        "enough.",
    )
    drain_s: float = Field(
        8, ge=0, description="What calls and records under way may take at shutdown."
    )
