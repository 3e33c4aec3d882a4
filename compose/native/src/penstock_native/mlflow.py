"""MLflow's server and UI beside the stack, from an environment of its own (docs/decisions/0011)."""

import sys
from collections.abc import Mapping, MutableMapping
from pathlib import Path

from penstock_native.ports import LOOPBACK

__all__ = ["NAME", "command", "installed", "place"]

NAME = "mlflow"
# `make up` makes it; tests and benchmarks do without.
_PYTHON = Path(sys.prefix) / "mlflow" / "bin" / "python"


def installed() -> bool:
    """Whether its environment is there."""
    return _PYTHON.exists()


def command(state_dir: Path, env: Mapping[str, str]) -> tuple[str, ...]:
    """The command that serves runs and models of a state directory, on loopback."""
    store = state_dir / NAME
    store.mkdir(parents=True, exist_ok=True)
    return (
        str(_PYTHON), "-m", "mlflow", "server",
        "--backend-store-uri", f"sqlite:///{store / 'mlflow.sqlite'}",
        "--artifacts-destination", str(store / "artifacts"),
        "--host", LOOPBACK,
        "--port", env["PENSTOCK_MLFLOW_HTTP_PORT"],
        "--workers", "1",
    )  # fmt: skip


def place(env: MutableMapping[str, str]) -> None:
    """Has retrain mirror its registry to it, unless a setting names another one."""
    if not env.get("PENSTOCK_RETRAIN_MLFLOW_URI"):
        port = env["PENSTOCK_MLFLOW_HTTP_PORT"]
        env["PENSTOCK_RETRAIN_MLFLOW_URI"] = f"http://{LOOPBACK}:{port}"
