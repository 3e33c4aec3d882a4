"""Builds the service: the ledger, the agent on `usage`, and the gRPC door, in one loop."""

from __future__ import annotations

import asyncio
from functools import partial

from penstock.kafka.gate import dead_letters
from penstock.kafka.publisher import KafkaPublisher
from penstock.pricing import PriceTable, PriceTableError
from penstock.rpc.server import Server, Service
from penstock.settings import SettingsError
from penstock.streams import consume, make_app, run
from penstock.telemetry import configure_logs, configure_traces, logger, serve_metrics
from penstock.topics import topic_of
from penstock.v1 import cost_service_pb2, cost_service_pb2_grpc
from penstock_cost.agents import UsageAgent
from penstock_cost.alerts import Alerts
from penstock_cost.servicer import CostServicer
from penstock_cost.settings import CostSettings
from penstock_cost.store import LedgerStore

__all__ = ["serve"]

log = logger(__name__)

GRACE_S = 5.0


async def serve(settings: CostSettings) -> None:
    """Runs until SIGTERM or SIGINT.

    Raises:
        SettingsError: The price table cannot be used.
        LedgerUnavailable: The database cannot be used.
        LogError: Kafka cannot be reached, or what must be written cannot.
    """
    configure_logs("cost", settings.log_level)
    configure_traces("cost", settings)
    prices = _prices(settings)
    store = await asyncio.to_thread(LedgerStore, settings.database_url)
    publisher = KafkaPublisher(settings.kafka_bootstrap, "penstock-cost")
    server = _server(settings, CostServicer(store, prices))
    try:
        if settings.metrics_port:
            serve_metrics(settings.host, settings.metrics_port)
        await publisher.start()
        alerts = Alerts(store, publisher, topic_of("alerts").full_name(settings.topic_prefix))
        await _reprice(store, prices, alerts)
        port = await server.start()
        log.info("serving", port=port, ledger=store.ledger_id)
        await _consume(settings, store, UsageAgent(store, prices, alerts), publisher, server)
    finally:
        await server.stop(GRACE_S)
        await publisher.stop()
        store.close()


async def _consume(
    settings: CostSettings,
    store: LedgerStore,
    agent: UsageAgent,
    publisher: KafkaPublisher,
    server: Server,
) -> None:
    prefix = settings.topic_prefix
    # A new ledger gets a new group, and so fills itself from the beginning of the log.
    group = f"{prefix}-cost-{store.ledger_id}"
    app = make_app(group, settings)
    consume(
        app,
        topic_of("usage").full_name(prefix),
        agent.handle,
        dead_letters=dead_letters(settings, publisher, service="cost", group=group),
        max_batch=settings.max_batch,
    )
    await run(app, started=partial(server.set_ready, True))


async def _reprice(store: LedgerStore, prices: PriceTable, alerts: Alerts) -> None:
    repriced = await asyncio.to_thread(store.reprice, prices)
    if repriced:
        log.info("priced lines that had waited", lines=repriced)
    await alerts.resolve()
    await alerts.open()


def _prices(settings: CostSettings) -> PriceTable:
    try:
        return PriceTable.parse(settings.prices.read_text(encoding="utf-8"))
    except (OSError, PriceTableError) as error:
        raise SettingsError(f"PENSTOCK_COST_PRICES={settings.prices}: {error}") from error


def _server(settings: CostSettings, servicer: CostServicer) -> Server:
    name = cost_service_pb2.DESCRIPTOR.services_by_name["Cost"].full_name
    register = partial(cost_service_pb2_grpc.add_CostServicer_to_server, servicer)
    return Server([Service(name, register)], host=settings.host, port=settings.grpc_port)
