"""Settings from the environment, which refuse what they do not know.

pydantic-settings ignores a mistyped variable even with `extra="forbid"`, and a service then runs
with a default that nobody chose. `Settings` therefore looks at every variable that begins with
`PENSTOCK_` and is meant for it, and refuses those that name no field.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from typing import Any, Self

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

__all__ = ["Settings", "SettingsError"]

PREFIX = "PENSTOCK_"
SERVICES = ("INGEST", "INFERENCE", "DRIFT", "COST", "RETRAIN")
# Read by the launcher of the native stack and by the command, not by services.
LAUNCHER = ("NATIVE", "DEMO", "CLI", "MLFLOW")


class SettingsError(Exception):
    """The environment does not make valid settings; the message names each variable."""


class Settings(BaseSettings):
    """What every service reads. A service subclasses it with its own `env_prefix`.

    Example:
        class CostSettings(Settings):
            model_config = SettingsConfigDict(env_prefix="PENSTOCK_COST_")
            grpc_port: int = Field(9140, description="Port of the gRPC door.")

        settings = CostSettings.load()
    """

    model_config = SettingsConfigDict(frozen=True, env_prefix=PREFIX)

    kafka_bootstrap: str = Field(
        "127.0.0.1:9092",
        validation_alias="PENSTOCK_KAFKA_BOOTSTRAP",
        description="Kafka's bootstrap servers, separated by commas.",
    )
    topic_prefix: str = Field(
        "penstock",
        validation_alias="PENSTOCK_TOPIC_PREFIX",
        description="What stands before the dot in every topic's name.",
    )
    log_level: str = Field(
        "info",
        validation_alias="PENSTOCK_LOG_LEVEL",
        pattern="^(debug|info|warning|error)$",
        description="The least severe log line that is written.",
    )
    otlp_endpoint: str = Field(
        "",
        validation_alias="PENSTOCK_OTLP_ENDPOINT",
        description="Where traces go by OTLP over gRPC; empty exports none.",
    )

    @classmethod
    def load(cls, environment: Mapping[str, str] | None = None, **overrides: Any) -> Self:
        """Reads the environment.

        Raises:
            SettingsError: A variable is unknown or its value is not allowed; names all of them.
        """
        unknown = cls._unknown(os.environ if environment is None else environment)
        if unknown:
            raise SettingsError("\n".join(unknown))
        try:
            return cls(**overrides)
        except ValidationError as error:
            lines = [
                f"{cls._variable(str(e['loc'][0]))}: {e['msg']} (it is {e['input']!r})"
                for e in error.errors()
            ]
            raise SettingsError("\n".join(lines)) from error

    @classmethod
    def _variable(cls, field: str) -> str:
        info = cls.model_fields.get(field)
        if info is None or info.validation_alias is not None:
            return str(info.validation_alias) if info else field
        return f"{cls.model_config.get('env_prefix', '')}{field}".upper()

    @classmethod
    def _unknown(cls, environment: Mapping[str, str]) -> list[str]:
        known = {cls._variable(field) for field in cls.model_fields}
        own = str(cls.model_config.get("env_prefix", "")).upper()
        others = {f"{PREFIX}{name}_" for name in (*SERVICES, *LAUNCHER)} - {own}
        errors = []
        for name in sorted(environment):
            if not name.startswith(PREFIX) or name in known:
                continue
            if any(name.startswith(prefix) for prefix in others):
                continue
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]}?" if close else "; unset it"
            errors.append(f"{name} is not a setting of penstock{hint}")
        return errors
