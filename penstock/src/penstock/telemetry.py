"""Logs, metrics and traces, set up once at a service's entry point.

Logs are structlog over the standard library, one JSON object a line on standard error. Metrics are
Prometheus's, on `/metrics` of a loopback port. Traces are OpenTelemetry's, carried from door to
answer in record headers and gRPC metadata as W3C trace context, and exported by OTLP when an
endpoint is set. No prompt text belongs in any of them.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from prometheus_client import start_http_server

from penstock.settings import Settings

__all__ = ["configure_logs", "configure_traces", "logger", "serve_metrics", "tracer"]

# Libraries whose info lines say nothing to an operator.
_QUIET = ("aiokafka", "faust", "mode", "httpx", "httpcore", "uvicorn.access", "asyncio", "ray")


def configure_logs(service: str, level: str) -> None:
    """Writes every log line of the process, libraries' included, as JSON to standard error."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.EventRenamer("message"),
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    structlog.contextvars.bind_contextvars(service=service)


def configure_traces(service: str, settings: Settings) -> None:
    """Records and exports spans where `PENSTOCK_OTLP_ENDPOINT` is set.

    Elsewhere spans cost nothing, and the context that a client sent is carried on all the same.
    """
    if not settings.otlp_endpoint:
        return
    provider = TracerProvider(resource=Resource.create({"service.name": f"penstock-{service}"}))
    exporter = OTLPSpanExporter(endpoint=settings.otlp_endpoint)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)


def serve_metrics(host: str, port: int) -> None:
    """Serves `/metrics` from a thread of its own.

    Raises:
        OSError: The port is taken.
    """
    start_http_server(port, addr=host)


def logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger for a module; call it with an event and key=value pairs."""
    return structlog.stdlib.get_logger(name)


def tracer(name: str) -> trace.Tracer:
    """A tracer for a module."""
    return trace.get_tracer(name)
