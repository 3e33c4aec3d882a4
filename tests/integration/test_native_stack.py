"""The native stack: what dies is started again, and nothing is left when it goes down."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock_native.errors import StartError
from penstock_native.ports import kafka_answers, wait_until
from penstock_native.processes import identify, marked, tree
from penstock_native.stack import Stack

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with Stack.ephemeral(services=("kafka",)) as running:
        yield running


def _port(stack: Stack) -> int:
    return int(stack.env["PENSTOCK_KAFKA_BOOTSTRAP"].rpartition(":")[2])


def test_second_up_is_no_error(stack: Stack) -> None:
    assert stack.up() is False


def test_killed_service_is_started_again(stack: Stack) -> None:
    before = stack.kill("kafka")
    assert wait_until(lambda: stack.ready() and stack.pid("kafka") != before, timeout_s=60)
    assert wait_until(lambda: kafka_answers(_port(stack)), timeout_s=60)


def test_stopped_service_stays_stopped_until_started(stack: Stack) -> None:
    stack.stop("kafka")
    assert not kafka_answers(_port(stack))
    stack.start("kafka")
    assert wait_until(lambda: kafka_answers(_port(stack)), timeout_s=60)


def test_log_is_kept(stack: Stack) -> None:
    assert "Kafka Server started" in stack.log("kafka")


def test_taken_port_is_named_with_its_variable(stack: Stack, tmp_path: Path) -> None:
    other = Stack(tmp_path, services=("kafka",), env=stack.env)
    with pytest.raises(StartError, match=r"PENSTOCK_(KAFKA_BOOTSTRAP|NATIVE_CONTROLLER_PORT)"):
        other.up()


def test_run_exits_with_the_code_and_leaves_nothing() -> None:
    command = ["sh", "-c", "echo $PENSTOCK_NATIVE_STACK $PENSTOCK_KAFKA_BOOTSTRAP; exit 7"]
    result = subprocess.run(
        [sys.executable, "-m", "penstock_native", "run", "--only", "kafka", "--", *command],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 7, result.stderr
    state_dir, bootstrap = result.stdout.split()
    assert not Path(state_dir).exists()
    assert not marked("PENSTOCK_NATIVE_STACK", state_dir)
    assert not kafka_answers(int(bootstrap.rpartition(":")[2]))


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """A directory near the root, where a socket's path fits."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as made:
        yield Path(made)


def test_stack_ends_with_the_process_that_started_it(short_dir: Path) -> None:
    code = (
        "import time; from penstock_native.stack import Stack\n"
        "with Stack.ephemeral(services=('kafka',)) as s:\n"
        "    print(s.pid('kafka'), flush=True); time.sleep(600)"
    )
    # Nobody is left to remove its state.
    environment = {**os.environ, "TMPDIR": str(short_dir)}
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment
    ) as starter:
        assert starter.stdout is not None
        assert identify(int(starter.stdout.readline())) is not None
        processes = tree(starter.pid)
        assert len(processes) >= 3, "the starter, supervisord and Kafka"
        os.kill(starter.pid, signal.SIGKILL)
        starter.wait()
        assert wait_until(
            lambda: not any(identify(each.pid) == each for each in processes), timeout_s=60
        )
