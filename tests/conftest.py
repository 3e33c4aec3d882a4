"""Fixtures that every kind of test shares."""

import os
from collections.abc import Generator, Iterator

import pytest
from hypothesis import settings

from penstock_native.kafka import KafkaServer
from penstock_native.stack import Stack

# A worker of pytest-xdist claims a terminal of 80 columns, to which tables would be cut.
for name in ("COLUMNS", "LINES"):
    os.environ.pop(name, None)

LOG_CHARACTERS = 4000  # of each service's log, where a test of a stack failed

# How long an example takes says more of the machine than of the code.
settings.register_profile("penstock", deadline=None)
settings.load_profile("penstock")


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    """A real Kafka on a free port, for the whole session: use topics and groups of your own."""
    with KafkaServer(tmp_path_factory.mktemp("kafka")) as server:
        yield server


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Function, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where a test of a stack failed, what the services said: its directory is about to go."""
    report = yield
    if report.failed:
        stacks = [each for each in item.funcargs.values() if isinstance(each, Stack)]
        for stack in stacks:
            for service in ("supervisord", *stack.services):
                log = stack.log(service)[-LOG_CHARACTERS:]
                report.sections.append((f"log of {service}", log))
    return report
