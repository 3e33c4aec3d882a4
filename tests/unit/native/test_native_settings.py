"""The stack's one file of settings, and what is made from it."""

import os
from pathlib import Path

import pytest

from penstock_native.errors import NativeError
from penstock_native.settings import port_variables, stack_defaults, stack_environment
from penstock_native.stack import Stack
from penstock_native.supervise import socket_path


def test_ports_differ() -> None:
    defaults = stack_defaults()
    ports = [defaults[name] for name in port_variables()]
    ports.append(defaults["PENSTOCK_KAFKA_BOOTSTRAP"].rpartition(":")[2])
    assert len(set(ports)) == len(ports)


def test_references_are_filled_in() -> None:
    defaults = stack_defaults()
    assert defaults["KAFKA_IMAGE"] == f"apache/kafka:{defaults['KAFKA_VERSION']}"


def test_environment_wins_over_the_file_and_overrides_over_both(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PENSTOCK_LOG_LEVEL", "warning")
    assert stack_environment()["PENSTOCK_LOG_LEVEL"] == "warning"
    assert stack_environment({"PENSTOCK_LOG_LEVEL": "error"})["PENSTOCK_LOG_LEVEL"] == "error"


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(NativeError, match="is missing"):
        stack_defaults(tmp_path / ".env")


def test_ledger_lies_in_the_state_directory(tmp_path: Path) -> None:
    stack = Stack(tmp_path, services=(), env={"PENSTOCK_COST_DATABASE_URL": ""})
    assert stack.env["PENSTOCK_COST_DATABASE_URL"] == f"sqlite:///{tmp_path}/cost.sqlite"


def test_unknown_service_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NativeError, match="no such service: ingset"):
        Stack(tmp_path, services=("kafka", "ingset"))


@pytest.mark.parametrize("depth", [1, 200])
def test_control_socket_fits_the_limit_of_the_kernel(depth: int) -> None:
    path = socket_path(Path("/var") / ("d" * depth))
    # supervisord binds "<path>.<pid>" first.
    assert len(os.fsencode(f"{path}.4194304")) <= 107


def test_as_many_addresses_as_brokers(tmp_path: Path) -> None:
    env = {"PENSTOCK_NATIVE_KAFKA_BROKERS": "3", "PENSTOCK_KAFKA_BOOTSTRAP": "127.0.0.1:9092"}
    with pytest.raises(NativeError, match=r"BROKERS=3, but PENSTOCK_KAFKA_BOOTSTRAP has 1"):
        Stack(tmp_path, services=("kafka",), env=env)


def test_nodes_of_a_cluster_are_services(tmp_path: Path) -> None:
    addresses = ",".join(f"127.0.0.1:{port}" for port in (9192, 9292, 9392))
    env = {"PENSTOCK_NATIVE_KAFKA_BROKERS": "3", "PENSTOCK_KAFKA_BOOTSTRAP": addresses}
    stack = Stack(tmp_path, services=("kafka", "ingest"), env=env)
    assert stack.services == ("kafka-1", "kafka-2", "kafka-3", "ingest")
    assert stack.env["PENSTOCK_CLI_REPLICATION_FACTOR"] == "3"


def test_what_retrain_keeps_lies_in_the_state_directory(tmp_path: Path) -> None:
    stack = Stack(tmp_path, services=())
    assert stack.env["PENSTOCK_RETRAIN_DATABASE_URL"] == f"sqlite:///{tmp_path}/retrain.sqlite"
    for name in ("ADAPTERS_DIR", "MODELS_DIR", "WORK_DIR", "COLLECTED_URL", "SIGNING_KEY"):
        assert Path(stack.env[f"PENSTOCK_RETRAIN_{name}"]).is_relative_to(tmp_path)
    # Registered adapters go where engines look for them.
    env = {"PENSTOCK_INFERENCE_ADAPTERS_DIR": "/adapters"}
    assert Stack(tmp_path, services=(), env=env).env["PENSTOCK_RETRAIN_ADAPTERS_DIR"] == "/adapters"


def test_jobs_begin_from_the_model_that_is_served(tmp_path: Path) -> None:
    stack = Stack(tmp_path, services=("retrain",))
    assert stack.env["PENSTOCK_RETRAIN_BASE_MODELS"] == "triage=examples/triage/model"
    mine = {"PENSTOCK_INFERENCE_MODEL": "/models/llama", "PENSTOCK_INFERENCE_MODEL_NAME": "llama"}
    stack = Stack(tmp_path, services=("retrain",), env=mine)
    assert stack.env["PENSTOCK_RETRAIN_BASE_MODELS"] == "llama=/models/llama"
    said = mine | {"PENSTOCK_RETRAIN_BASE_MODELS": "other=/models/other"}
    stack = Stack(tmp_path, services=("retrain",), env=said)
    assert stack.env["PENSTOCK_RETRAIN_BASE_MODELS"] == "other=/models/other"
