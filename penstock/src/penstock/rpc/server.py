"""A grpc.aio server as every service runs it: health, reflection, mapped errors, bounds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from penstock.rpc.interceptors import ErrorInterceptor

__all__ = ["MAX_MESSAGE_BYTES", "Server", "Service"]

MAX_MESSAGE_BYTES = 4 * 1024 * 1024
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@dataclasses.dataclass(frozen=True)
class Service:
    """A service to be served.

    Attributes:
        name: Its full name, for health and reflection.
        register: Adds its servicer to a server.

    Example:
        Service("penstock.v1.Cost", partial(add_CostServicer_to_server, servicer))
    """

    name: str
    register: Callable[[grpc.aio.Server], None]


class Server:
    """Serves some services on one port until it is stopped.

    Health says NOT_SERVING, for each service and for the server as a whole (the empty name),
    until `set_ready(True)`.

    Args:
        services: What is served.
        host: The address to listen on.
        port: The port; 0 takes a free one.
        max_message_bytes: The largest message either way.
        max_concurrent: Calls at a time; more are refused with RESOURCE_EXHAUSTED. None: no bound.
    """

    def __init__(
        self,
        services: Sequence[Service],
        *,
        host: str,
        port: int,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        max_concurrent: int | None = None,
    ) -> None:
        self._names = [service.name for service in services]
        self._address = f"{host}:{port}"
        self._server = grpc.aio.server(
            interceptors=[ErrorInterceptor()],
            maximum_concurrent_rpcs=max_concurrent,
            options=[
                ("grpc.max_receive_message_length", max_message_bytes),
                ("grpc.max_send_message_length", max_message_bytes),
                # Otherwise a second process takes a share of the port without an error.
                ("grpc.so_reuseport", 0),
                # Channels ping every 20 s; the default cuts them off after two.
                ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
                ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
                ("grpc.keepalive_permit_without_calls", 1),
            ],
        )
        for service in services:
            service.register(self._server)
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (*self._names, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)

    async def start(self) -> int:
        """Listens and returns the port.

        Raises:
            OSError: The port is taken.
        """
        await self.set_ready(False)
        try:
            port = self._server.add_insecure_port(self._address)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {self._address}: {error}") from error
        await self._server.start()
        return port

    async def set_ready(self, ready: bool) -> None:
        """What the health service says from now on."""
        for name in ("", *self._names):
            await self._health.set(name, _SERVING if ready else _NOT_SERVING)

    async def stop(self, grace_s: float) -> None:
        """Takes no more calls, gives those under way `grace_s`, then cancels them."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace_s)

    async def wait(self) -> None:
        """Returns when the server has stopped."""
        await self._server.wait_for_termination()
