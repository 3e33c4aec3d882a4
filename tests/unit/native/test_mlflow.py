"""MLflow's server beside the stack: who runs it, where, and who is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock_native import mlflow
from penstock_native.stack import Stack


def test_a_stack_that_has_it_mirrors_the_registry_there(tmp_path: Path) -> None:
    stack = Stack(
        tmp_path, services=("mlflow", "retrain"), env={"PENSTOCK_MLFLOW_HTTP_PORT": "5055"}
    )
    assert stack.env["PENSTOCK_RETRAIN_MLFLOW_URI"] == "http://127.0.0.1:5055"
    command = mlflow.command(tmp_path, stack.env)
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert command[command.index("--port") + 1] == "5055"
    assert command[command.index("--backend-store-uri") + 1].startswith(f"sqlite:///{tmp_path}/")


def test_another_one_that_is_named_stays(tmp_path: Path) -> None:
    env = {"PENSTOCK_RETRAIN_MLFLOW_URI": "http://mlflow.example:5000"}
    stack = Stack(tmp_path, services=("mlflow", "retrain"), env=env)
    assert stack.env["PENSTOCK_RETRAIN_MLFLOW_URI"] == "http://mlflow.example:5000"


def test_without_it_nothing_is_mirrored(tmp_path: Path) -> None:
    assert not Stack(tmp_path, services=("retrain",)).env["PENSTOCK_RETRAIN_MLFLOW_URI"]


def test_a_stack_runs_it_where_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlflow, "installed", lambda: True)
    assert "mlflow" in Stack(tmp_path).services
    monkeypatch.setattr(mlflow, "installed", lambda: False)
    assert "mlflow" not in Stack(tmp_path).services
