"""The settings of retrain, each declared once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from penstock.settings import Settings

__all__ = ["RetrainSettings"]

DEFAULT_DATABASE_URL = "sqlite:///.penstock/retrain.sqlite"
DEFAULT_COLLECTED_URL = ".penstock/collected"


class RetrainSettings(Settings):
    """What retrain reads from the environment, under `PENSTOCK_RETRAIN_`."""

    model_config = SettingsConfigDict(env_prefix="PENSTOCK_RETRAIN_")

    host: str = Field("127.0.0.1", description="Address that gRPC and metrics bind.")
    grpc_port: int = Field(
        9150, ge=0, description="Port of penstock.v1.Rollouts; 0 takes a free one."
    )
    metrics_port: int = Field(9151, ge=0, description="Port of /metrics; 0 serves none.")
    database_url: str = Field(
        "",
        description="SQLAlchemy's URL of jobs, versions and aliases; empty takes "
        f"{DEFAULT_DATABASE_URL}.",
    )
    policy: Path | None = Field(
        None, description="The policy of new jobs, YAML; the default one where none is named."
    )
    adapters_dir: Path = Field(
        Path(".penstock/adapters"),
        description="Where registered adapters go: the directory that engines load them from.",
    )
    models_dir: Path = Field(
        Path(".penstock/models"), description="Where registered full weights go."
    )
    work_dir: Path = Field(
        Path(".penstock/retrain"), description="Where jobs keep datasets, runs and reports."
    )
    suites_dir: Path = Field(
        Path(), description="Where the suites of gates are that policies name by relative paths."
    )
    collected_url: str = Field(
        "",
        description="Where requests, responses and feedback are kept: a directory, or a URL that "
        f"fsspec opens; empty takes {DEFAULT_COLLECTED_URL}.",
    )
    collected_keep_days: int = Field(
        90, ge=0, description="Files of earlier days than so many ago are removed; 0 keeps all."
    )
    base_models: Annotated[Mapping[str, Path], NoDecode] = Field(
        {"triage": Path("examples/triage/model")},
        description="Hugging Face directories of the engines' models that trainings begin from: "
        "`name=directory`, separated by commas.",
    )
    imports_dir: Path | None = Field(
        None,
        description="Where adapters are, a sub-directory each, that were trained elsewhere and "
        "that policies may name; none are taken in where it is not set.",
    )
    ray_address: str = Field(
        "",
        description="The Ray cluster that trainings run on; empty starts one on this machine for "
        "each training's time.",
    )
    training_cpus: float = Field(1, gt=0, description="Cores of a training.")
    training_gpus: float = Field(0, ge=0, description="GPUs of a training.")
    training_memory_mib: int = Field(
        0, ge=0, description="Memory that Ray reserves for a training, MiB; 0 reserves none."
    )
    training_retries: int = Field(
        2,
        ge=0,
        description="How often Ray starts a training's process again that died, from its last "
        "checkpoint, before the attempt counts as failed.",
    )
    signing_key: Path = Field(
        Path(".penstock/keys/registry.pem"),
        description="Ed25519 key, PEM, that signs manifests; made where there is none, with its "
        "public half beside it.",
    )
    prices: Path | None = Field(
        None,
        description="What tokens cost, as the cost service has it, for canaries that compare it.",
    )
    mlflow_uri: str = Field(
        "", description="Tracking URI of the MLflow that mirrors the registry; empty mirrors none."
    )
    concurrent_jobs: int = Field(1, ge=1, le=100, description="Jobs that run here at a time.")
    clean_after_s: float = Field(
        60,
        ge=0,
        description="How long after a job's end what nobody needs of it is removed: its adapter "
        "too, unless it was promoted.",
    )
    lease_s: float = Field(
        15, ge=1, description="How long a job is left to a process that is not heard of."
    )

    @field_validator("database_url")
    @classmethod
    def _default_database(cls, value: str) -> str:
        return value or DEFAULT_DATABASE_URL

    @field_validator("collected_url")
    @classmethod
    def _default_collected(cls, value: str) -> str:
        return value or DEFAULT_COLLECTED_URL

    @field_validator("prices", "imports_dir", mode="before")
    @classmethod
    def _none_named(cls, value: object) -> object:
        return value or None

    @field_validator("base_models", mode="before")
    @classmethod
    def _named_directories(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        named = [each.partition("=") for each in value.split(",") if each.strip()]
        if not all(name.strip() and path.strip() for name, _, path in named):
            raise ValueError("write name=directory, separated by commas")
        return {name.strip(): path.strip() for name, _, path in named}
