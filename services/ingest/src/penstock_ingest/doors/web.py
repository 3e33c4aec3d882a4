"""Serves an ASGI application by uvicorn inside a loop that others share."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import uvicorn
from fastapi import FastAPI

__all__ = ["WebServer"]


class _Embedded(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves signals to the application."""
        yield


class WebServer:
    """One application on one port.

    Args:
        app: The application.
        host: The address to listen on.
        port: The port; 0 takes a free one.
    """

    def __init__(self, app: FastAPI, *, host: str, port: int) -> None:
        self._address = (host, port)
        self._app = app
        self._server: _Embedded | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> int:
        """Listens and returns the port.

        Raises:
            OSError: The port is taken.
        """
        family = socket.AF_INET6 if ":" in self._address[0] else socket.AF_INET
        listener = socket.create_server(self._address, family=family, backlog=2048)
        port: int = listener.getsockname()[1]
        config = uvicorn.Config(
            self._app, log_config=None, access_log=False, lifespan="off", ws="none"
        )
        self._server = _Embedded(config)
        self._task = asyncio.create_task(self._server.serve(sockets=[listener]))
        return port

    async def stop(self, grace_s: float) -> None:
        """Takes no more requests, gives those under way `grace_s`, then drops them."""
        if self._server is None or self._task is None:
            return
        self._server.config.timeout_graceful_shutdown = max(1, round(grace_s))
        self._server.should_exit = True
        await self._task
