"""The proxy passes bytes on, and stops, cuts and half-closes as it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from penstock_native.ports import LOOPBACK, free_port
from tests.chaos.proxy import Gate, Proxy

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
async def proxied() -> AsyncIterator[tuple[Proxy, int]]:
    """A server that answers each line with itself, behind a gate."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                writer.write(line)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(echo, LOOPBACK, 0)
    gate = Gate(listen=free_port(), target=server.sockets[0].getsockname()[1])
    async with Proxy({"echo": gate}) as proxy:
        yield proxy, gate.listen
    server.close()


async def _said(streams: Streams, text: bytes, timeout_s: float = 5.0) -> bytes:
    reader, writer = streams
    writer.write(text)
    return await asyncio.wait_for(reader.readline(), timeout_s)


async def test_bytes_pass(proxied: tuple[Proxy, int]) -> None:
    streams = await asyncio.open_connection(LOOPBACK, proxied[1])
    assert await _said(streams, b"hello\n") == b"hello\n"
    assert proxied[0].connections("echo") == 1
    streams[1].close()


async def test_cut_resets_and_the_next_connection_works(proxied: tuple[Proxy, int]) -> None:
    proxy, port = proxied
    streams = await asyncio.open_connection(LOOPBACK, port)
    assert await _said(streams, b"hello\n") == b"hello\n"
    assert proxy.cut("echo") == 1
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(streams[0].read(1), 5)
    again = await asyncio.open_connection(LOOPBACK, port)
    assert await _said(again, b"again\n") == b"again\n"
    for _, writer in (streams, again):
        writer.close()


async def test_refused_until_healed(proxied: tuple[Proxy, int]) -> None:
    proxy, port = proxied
    proxy.cut("echo", refuse=True)
    streams = await asyncio.open_connection(LOOPBACK, port)
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(streams[0].read(1), 5)
    proxy.heal("echo")
    again = await asyncio.open_connection(LOOPBACK, port)
    assert await _said(again, b"again\n") == b"again\n"
    for _, writer in (streams, again):
        writer.close()


@pytest.mark.parametrize("directions", ["up", "down", "both"])
async def test_stall_holds_and_loses_nothing(proxied: tuple[Proxy, int], directions: str) -> None:
    proxy, port = proxied
    streams = await asyncio.open_connection(LOOPBACK, port)
    assert await _said(streams, b"hello\n") == b"hello\n"
    proxy.stall("echo", directions)  # type: ignore[arg-type]
    with pytest.raises(TimeoutError):
        await _said(streams, b"held\n", timeout_s=0.2)
    proxy.heal("echo")
    assert await asyncio.wait_for(streams[0].readline(), 5) == b"held\n"
    streams[1].close()


async def test_half_close_ends_one_direction(proxied: tuple[Proxy, int]) -> None:
    proxy, port = proxied
    streams = await asyncio.open_connection(LOOPBACK, port)
    assert await _said(streams, b"hello\n") == b"hello\n"
    assert proxy.half_close("echo", "down") == 1
    assert await asyncio.wait_for(streams[0].read(), 5) == b"", "the client sees the end"
    streams[1].write(b"still taken\n")
    await streams[1].drain()
    assert proxy.connections("echo") == 1, "the other direction is open"
    streams[1].close()


async def test_server_that_is_away_resets(proxied: tuple[Proxy, int]) -> None:
    gate = Gate(listen=free_port(), target=free_port())
    async with Proxy({"nobody": gate}):
        reader, writer = await asyncio.open_connection(LOOPBACK, gate.listen)
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.read(1), 5)
        writer.close()
