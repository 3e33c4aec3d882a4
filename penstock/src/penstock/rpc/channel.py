"""A channel to another service of the stack."""

from __future__ import annotations

import grpc

from penstock.rpc.interceptors import TraceUnaryStream, TraceUnaryUnary
from penstock.rpc.server import MAX_MESSAGE_BYTES

__all__ = ["open_channel"]


def open_channel(
    target: str, *, max_message_bytes: int = MAX_MESSAGE_BYTES, traced: bool = True
) -> grpc.aio.Channel:
    """A channel without transport security, for loopback; the caller closes it.

    It finds a dead peer within half a minute and sends the current trace context along.

    Args:
        target: `host:port`.
        max_message_bytes: The largest message either way.
        traced: Whether calls carry the current trace context.
    """
    return grpc.aio.insecure_channel(
        target,
        options=[
            ("grpc.max_receive_message_length", max_message_bytes),
            ("grpc.max_send_message_length", max_message_bytes),
            ("grpc.keepalive_time_ms", 20_000),
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.keepalive_permit_without_calls", 1),
            # A peer that came back is found within a second, not after minutes of backoff.
            ("grpc.initial_reconnect_backoff_ms", 200),
            ("grpc.max_reconnect_backoff_ms", 1_000),
        ],
        interceptors=[TraceUnaryUnary(), TraceUnaryStream()] if traced else None,
    )
