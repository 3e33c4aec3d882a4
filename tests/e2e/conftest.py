"""The whole stack, vLLM included, for the session's end-to-end tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from penstock_native.stack import Stack
from tests.e2e.support import TICKET


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """Kafka, ingest, inference with vLLM, cost and drift, on free ports; answers already."""
    # Compiling the model takes longer than running these tests without. The tests ask the same
    # question by every door, and each answer is to be generated.
    env = {"PENSTOCK_INFERENCE_EAGER": "true", "PENSTOCK_INFERENCE_CACHE_MIB": "0"}
    with Stack.ephemeral(env=env) as running:
        running.penstock("generate", TICKET)  # returns when the first answer came
        yield running
