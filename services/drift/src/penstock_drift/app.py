"""Builds the service: the agent on `responses`, its detectors, what publishes findings."""

from __future__ import annotations

from penstock.kafka.gate import dead_letters
from penstock.kafka.publisher import KafkaPublisher
from penstock.streams import consume, make_app, run
from penstock.telemetry import configure_logs, configure_traces, logger, serve_metrics
from penstock.topics import topic_of
from penstock_drift.agents import ResponseAgent
from penstock_drift.legacy import Detectors
from penstock_drift.publisher import ChangePublisher
from penstock_drift.settings import DriftSettings

__all__ = ["serve"]

log = logger(__name__)


async def serve(settings: DriftSettings) -> None:
    """Runs until SIGTERM or SIGINT.

    Raises:
        LogError: Kafka cannot be reached, or what must be written cannot.
    """
    configure_logs("drift", settings.log_level)
    configure_traces("drift", settings)
    prefix = settings.topic_prefix
    publisher = KafkaPublisher(settings.kafka_bootstrap, "penstock-drift")
    detectors = Detectors(settings.adwin_delta, settings.max_keys)
    agent = ResponseAgent(detectors, ChangePublisher(publisher, prefix))
    try:
        if settings.metrics_port:
            serve_metrics(settings.host, settings.metrics_port)
        await publisher.start()
        group = f"{prefix}-drift"
        app = make_app(group, settings)
        consume(
            app,
            topic_of("responses").full_name(prefix),
            agent.handle,
            dead_letters=dead_letters(settings, publisher, service="drift", group=group),
            max_batch=settings.max_batch,
        )
        await run(app, started=_watching)
    finally:
        await publisher.stop()


async def _watching() -> None:
    log.info("watching")
