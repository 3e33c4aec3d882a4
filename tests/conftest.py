"""Fixtures that every kind of test shares."""

from collections.abc import Iterator

import pytest
from hypothesis import settings

from penstock_native.kafka import KafkaServer

# How long an example takes says more of the machine than of the code.
settings.register_profile("penstock", deadline=None)
settings.load_profile("penstock")


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    """A real Kafka on a free port, for the whole session: use topics and groups of your own."""
    with KafkaServer(tmp_path_factory.mktemp("kafka")) as server:
        yield server
