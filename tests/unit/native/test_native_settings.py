"""The stack's one file of settings, and what is made from it."""

import importlib
import os
from pathlib import Path

import pytest

from penstock.settings import Settings
from penstock_native.errors import NativeError
from penstock_native.settings import KEPT, port_variables, stack_defaults, stack_environment
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


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PENSTOCK_KAFKA_BOOTSTRAP", "kafka.example:9092"),
        ("PENSTOCK_KAFKA_BOOTSTRAP", "127.0.0.1"),
        ("PENSTOCK_KAFKA_BOOTSTRAP", "localhost:kafka"),
        ("PENSTOCK_KAFKA_BOOTSTRAP", ""),
        ("PENSTOCK_NATIVE_KAFKA_BROKERS", "one"),
        ("PENSTOCK_NATIVE_CONTROLLER_PORT", "-1"),
    ],
)
def test_a_kafka_of_its_own_listens_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(NativeError, match=f"{name}.*unset it"):
        Stack(tmp_path, services=("kafka", "cost"))
    # Without one the services go where they are told.
    assert Stack(tmp_path, services=("cost",)).env[name] == value


def test_localhost_is_here(tmp_path: Path) -> None:
    stack = Stack(tmp_path, services=("kafka",), env={"PENSTOCK_KAFKA_BOOTSTRAP": "localhost:9192"})
    assert stack.kafka_ports == {"kafka": 9192}


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


def test_a_stack_for_one_command_keeps_to_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stack, "up", lambda *_, **__: True)
    addresses = ("PENSTOCK_INGEST_HOST", "PENSTOCK_COST_HOST", "PENSTOCK_KAFKA_BOOTSTRAP")
    for name in (*KEPT, *addresses, "PENSTOCK_LOG_LEVEL"):
        monkeypatch.setenv(name, "/production")
    mine = {"PENSTOCK_RETRAIN_COLLECTED_URL": "/mine"}
    with Stack.ephemeral(services=("kafka", "cost", "retrain"), env=mine) as stack:
        assert not [n for n in (*KEPT, *addresses) if "/production" in stack.env[n]]
        assert stack.env["PENSTOCK_COST_DATABASE_URL"].endswith(f"{stack.state_dir}/cost.sqlite")
        assert stack.env["PENSTOCK_RETRAIN_COLLECTED_URL"] == "/mine"
        assert stack.env["PENSTOCK_LOG_LEVEL"] == "/production"


# Only read, or written to by many at a time.
SHARED = {
    "PENSTOCK_INFERENCE_RAY_TEMP_DIR",
    "PENSTOCK_OTLP_ENDPOINT",
    "PENSTOCK_RETRAIN_IMPORTS_DIR",
    "PENSTOCK_RETRAIN_SUITES_DIR",
}


def test_every_place_that_a_setting_names_is_kept_apart_or_meant_to_be_shared() -> None:
    found = set()
    for service in ("ingest", "inference", "drift", "cost", "retrain"):
        module = importlib.import_module(f"penstock_{service}.settings")
        for each in vars(module).values():
            if isinstance(each, type) and issubclass(each, Settings):
                prefix = each.model_config.get("env_prefix", "")
                found |= {
                    str(field.validation_alias or f"{prefix}{name}").upper()
                    for name, field in each.model_fields.items()
                    if name.endswith(("_dir", "_url", "_uri", "_address", "_endpoint", "_key"))
                }
    assert found - SHARED <= set(KEPT)
    assert found >= SHARED
