"""A connection that broke under aiokafka is a lost connection, whatever loop runs."""

from __future__ import annotations

import asyncio

import pytest
import uvloop
from aiokafka.conn import AIOKafkaConnection
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.metadata import MetadataRequest

import penstock.kafka.tolerance  # noqa: F401 - what is tested


@pytest.mark.parametrize("make_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_write_to_a_closed_connection_says_that_it_is_lost(make_loop: object) -> None:
    async def body() -> None:
        server = await asyncio.start_server(lambda _, theirs: theirs.close(), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        connection = AIOKafkaConnection("127.0.0.1", port, request_timeout_ms=200)
        _, connection._writer = await asyncio.open_connection("127.0.0.1", port)
        connection._versions = {MetadataRequest([]).API_KEY: (0, 1)}
        connection._writer.transport.abort()
        await asyncio.sleep(0.05)
        # uvloop raises at the write; asyncio drops it, and no answer comes.
        with pytest.raises((KafkaConnectionError, TimeoutError)):
            await connection.send(MetadataRequest([]))
        server.close()
        await asyncio.sleep(0.05)

    with asyncio.Runner(loop_factory=make_loop) as runner:  # type: ignore[arg-type]
        runner.run(body())
