"""What is wrong is said on `responses`, with the field; the next request is served."""

from __future__ import annotations

import asyncio
import json
import uuid

import pytest

from penstock.codec import decode
from penstock.kafka.publisher import KafkaPublisher
from penstock.kafka.reader import LogReader
from penstock.records import Outgoing, Record
from penstock.v1 import common_pb2, response_pb2
from penstock_native.stack import Stack
from tests.e2e.support import TICKET

# The first of a session starts the stack, beside another file's.
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

Code = common_pb2.ErrorCode
GOOD = {"messages": [{"role": "user", "content": TICKET}]}


async def exchange(stack: Stack, *values: bytes) -> list[response_pb2.GenerateResponse]:
    """Publishes values without headers, each under a key of its own; the responses, in order."""
    bootstrap = stack.env["PENSTOCK_KAFKA_BOOTSTRAP"]
    keys = [uuid.uuid4().hex.encode() for _ in values]
    found: dict[bytes, response_pb2.GenerateResponse] = {}

    def take(record: Record) -> None:
        if record.key in keys:
            assert record.key not in found, "a second response"
            found[record.key or b""] = decode(record, response_pb2.GenerateResponse)

    reader = LogReader(bootstrap, "penstock.responses")
    reading = asyncio.create_task(reader.run(take))
    await reader.caught_up.wait()
    publisher = KafkaPublisher(bootstrap, "test")
    await publisher.start()
    await publisher.publish(
        [Outgoing("penstock.requests", key, value) for key, value in zip(keys, values, strict=True)]
    )
    await publisher.stop()
    async with asyncio.timeout(90):
        while len(found) < len(values):
            await asyncio.sleep(0.05)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    return [found[key] for key in keys]


@pytest.mark.parametrize(
    ("value", "code", "field"),
    [
        (b'{"prompt": "a', Code.ERROR_CODE_MALFORMED, "value"),
        (b'{"promt": "a"}', Code.ERROR_CODE_MALFORMED, "value"),
        (json.dumps({**GOOD, "model": "none"}).encode(), Code.ERROR_CODE_UNKNOWN_MODEL, "model"),
        (b'{"prompt": ""}', Code.ERROR_CODE_INVALID_ARGUMENT, "prompt"),
        (
            json.dumps({"prompt": "word " * 3000}).encode(),
            Code.ERROR_CODE_CONTEXT_LENGTH_EXCEEDED,
            "prompt",
        ),
        (
            json.dumps({**GOOD, "timeout": "-5s"}).encode(),
            Code.ERROR_CODE_INVALID_ARGUMENT,
            "timeout",
        ),
        (
            json.dumps({**GOOD, "deadline": "2020-01-01T00:00:00Z"}).encode(),
            Code.ERROR_CODE_INVALID_ARGUMENT,
            "deadline",
        ),
        (
            json.dumps({**GOOD, "response_schema": {"type": "nonsense"}}).encode(),
            Code.ERROR_CODE_INVALID_ARGUMENT,
            "response_schema",
        ),
        (b'{"prompt": "' + b"x" * 5_000_000 + b'"}', Code.ERROR_CODE_TOO_LARGE, ""),
    ],
    ids=[
        "malformed JSON",
        "unknown field",
        "unknown model",
        "empty prompt",
        "over-long prompt",
        "negative timeout",
        "past deadline",
        "unusable schema",
        "5 MB",
    ],
)
async def test_a_bad_request_is_answered_and_the_next_is_served(
    stack: Stack, value: bytes, code: Code.ValueType, field: str
) -> None:
    bad, good = await exchange(stack, value, json.dumps(GOOD).encode())
    assert bad.outcome == response_pb2.OUTCOME_REJECTED
    assert bad.error.code == code
    assert field in bad.error.field
    assert bad.error.message
    assert good.outcome == response_pb2.OUTCOME_ANSWERED
