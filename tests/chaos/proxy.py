"""A TCP proxy on loopback that can cut, stall and half-close what runs through it.

async with Proxy({"kafka-1": Gate(listen=20001, target=20002)}) as proxy:
    proxy.cut("kafka-1")            # every connection is reset, new ones may come
    proxy.stall("kafka-1", "down")  # answers stay in the proxy, requests pass
    proxy.heal("kafka-1")
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Self

LOOPBACK = "127.0.0.1"
CHUNK = 64 * 1024

# Towards the server, towards the client.
Direction = Literal["up", "down"]
Directions = Literal["up", "down", "both"]


@dataclass(frozen=True)
class Gate:
    """Where clients connect, and where the server listens."""

    listen: int
    target: int


class _Flow:
    """One direction of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._ended = False

    async def run(self, open_: asyncio.Event) -> None:
        while data := await self._reader.read(CHUNK):
            await open_.wait()
            if self._ended:
                continue  # what comes after the end is lost, as on a half-closed connection
            self._writer.write(data)
            await self._writer.drain()
        await open_.wait()
        self.end()

    def end(self) -> None:
        if not self._ended:
            self._ended = True
            with contextlib.suppress(OSError, RuntimeError):
                self._writer.write_eof()

    def abort(self) -> None:
        _reset(self._writer)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Closes at once with a reset, not in order: what was not sent is lost."""
    sock = writer.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@dataclass
class _Listener:
    """A gate as it is served."""

    gate: Gate
    refusing: bool = False
    connections: set[tuple[_Flow, _Flow]] = field(default_factory=set)
    open_up: asyncio.Event = field(default_factory=asyncio.Event)
    open_down: asyncio.Event = field(default_factory=asyncio.Event)
    server: asyncio.Server | None = None

    async def serve(self) -> None:
        self.open_up.set()
        self.open_down.set()
        self.server = await asyncio.start_server(self._take, LOOPBACK, self.gate.listen)

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self.refusing:
                return
            far_reader, far_writer = await asyncio.open_connection(LOOPBACK, self.gate.target)
        except OSError:
            return  # the server is away: the client's connection is reset below
        else:
            up, down = _Flow(reader, far_writer), _Flow(far_reader, writer)
            self.connections.add((up, down))
            try:
                await asyncio.gather(up.run(self.open_up), down.run(self.open_down))
            except OSError:
                pass  # one side was reset: so is the other
            finally:
                self.connections.discard((up, down))
                _reset(far_writer)
        finally:
            _reset(writer)


class Proxy:
    """The gates by name. Not thread-safe: every call belongs on its event loop."""

    def __init__(self, gates: Mapping[str, Gate]) -> None:
        self._listeners = {name: _Listener(gate) for name, gate in gates.items()}

    async def __aenter__(self) -> Self:
        """Serves; raises OSError where a port is taken."""
        for listener in self._listeners.values():
            await listener.serve()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for name, listener in self._listeners.items():
            if listener.server is not None:
                listener.server.close()
            self.cut(name)

    def connections(self, name: str) -> int:
        """How many connections run through a gate now."""
        return len(self._listeners[name].connections)

    def cut(self, name: str, *, refuse: bool = False) -> int:
        """Resets every connection; with `refuse` new ones, too, until `heal`. Says how many."""
        listener = self._listeners[name]
        listener.refusing = refuse
        connections = list(listener.connections)
        for up, down in connections:
            up.abort()
            down.abort()
        return len(connections)

    def stall(self, name: str, directions: Directions = "both") -> int:
        """Passes nothing on until `heal`; connections stay, and new ones are taken."""
        listener = self._listeners[name]
        if directions in ("up", "both"):
            listener.open_up.clear()
        if directions in ("down", "both"):
            listener.open_down.clear()
        return len(listener.connections)

    def half_close(self, name: str, direction: Direction) -> int:
        """Ends one direction of every connection; the other one stays open."""
        connections = list(self._listeners[name].connections)
        for up, down in connections:
            (up if direction == "up" else down).end()
        return len(connections)

    def heal(self, name: str) -> None:
        """Ends a stall and refusals; what was held passes on."""
        listener = self._listeners[name]
        listener.refusing = False
        listener.open_up.set()
        listener.open_down.set()
