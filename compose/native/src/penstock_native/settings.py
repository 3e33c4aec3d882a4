"""The stack's settings: `compose/.env`, overridden by the process environment."""

import os
import re
from collections.abc import Mapping, MutableMapping
from pathlib import Path

from dotenv import dotenv_values

from penstock_native.errors import NativeError

ROOT = Path(__file__).parents[4]
ENV_FILE = ROOT / "compose" / ".env"

# Where a stack keeps what outlives it, and what it shares with others. Empty: its state directory,
# or nothing.
KEPT = (
    "PENSTOCK_COST_DATABASE_URL",
    "PENSTOCK_DRIFT_ALERTMANAGER_URL",
    "PENSTOCK_INFERENCE_ADAPTERS_DIR",
    "PENSTOCK_INFERENCE_ADAPTER_KEYS",
    "PENSTOCK_INFERENCE_RAY_ADDRESS",
    "PENSTOCK_RETRAIN_ADAPTERS_DIR",
    "PENSTOCK_RETRAIN_COLLECTED_URL",
    "PENSTOCK_RETRAIN_DATABASE_URL",
    "PENSTOCK_RETRAIN_MLFLOW_URI",
    "PENSTOCK_RETRAIN_MODELS_DIR",
    "PENSTOCK_RETRAIN_RAY_ADDRESS",
    "PENSTOCK_RETRAIN_SIGNING_KEY",
    "PENSTOCK_RETRAIN_WORK_DIR",
)


def stack_defaults(path: Path = ENV_FILE) -> dict[str, str]:
    """Read the committed settings, with references to other variables filled in.

    Raises:
        NativeError: The file is missing, or has a name without a value.
    """
    if not path.is_file():
        raise NativeError(f"{path} is missing: run from a complete checkout")
    settings = {}
    for name, value in dotenv_values(path).items():
        if value is None:
            raise NativeError(f"{path}: {name} has no value; write {name}=...")
        settings[name] = value
    return settings


def stack_environment(overrides: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the variables that the stack's processes get, the caller's environment included.

    Later wins: `compose/.env`, the process environment, `overrides`.
    """
    return {**stack_defaults(), **os.environ, **(overrides or {})}


def port_variables() -> list[str]:
    """Names of every setting that is a port to listen on."""
    return [name for name in stack_defaults() if re.fullmatch(r"PENSTOCK_\w+_PORT", name)]


def number_of(env: Mapping[str, str], name: str) -> int:
    """Read a setting that is a whole number.

    Raises:
        NativeError: It is none.
    """
    if not env[name].isdecimal():
        raise NativeError(f"{name}={env[name]} is no number: write one, or unset it")
    return int(env[name])


def place_retrain(env: MutableMapping[str, str], state_dir: Path) -> None:
    """What retrain keeps lies in the state directory, unless a setting says otherwise."""
    if not env.get("PENSTOCK_RETRAIN_DATABASE_URL"):
        env["PENSTOCK_RETRAIN_DATABASE_URL"] = f"sqlite:///{state_dir / 'retrain.sqlite'}"
    if not env.get("PENSTOCK_RETRAIN_COLLECTED_URL"):
        env["PENSTOCK_RETRAIN_COLLECTED_URL"] = str(state_dir / "collected")
    # Where engines look for adapters, registered ones go.
    adapters = env.get("PENSTOCK_INFERENCE_ADAPTERS_DIR") or state_dir / "adapters"
    # Jobs begin from the model that engines serve.
    served = env["PENSTOCK_INFERENCE_MODEL_NAME"], env["PENSTOCK_INFERENCE_MODEL"]
    env.setdefault("PENSTOCK_RETRAIN_BASE_MODELS", "=".join(served))
    for name, path in (
        ("ADAPTERS_DIR", adapters),
        ("MODELS_DIR", state_dir / "models"),
        ("WORK_DIR", state_dir / "retrain"),
        ("SIGNING_KEY", state_dir / "keys" / "registry.pem"),
    ):
        if not env.get(f"PENSTOCK_RETRAIN_{name}"):
            env[f"PENSTOCK_RETRAIN_{name}"] = str(path)
