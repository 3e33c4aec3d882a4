"""What every replica does when it starts: its number, its address, its logs and metrics."""

from __future__ import annotations

import ray

from penstock.telemetry import configure_logs, configure_traces, logger, serve_metrics
from penstock_inference.settings import InferenceSettings

__all__ = ["observe", "rank_of", "reachable", "single_node"]

log = logger(__name__)

EVERY_ADDRESS = "0.0.0.0"  # noqa: S104 - compared with, not bound to
PORTS_PER_PLACE = 10


def reachable(host: str) -> str:
    """The address under which pumps on other nodes find what is bound to a host."""
    # The application is built on one node and runs on others: only there is the address known.
    return str(ray.util.get_node_ip_address()) if host == EVERY_ADDRESS else host


def single_node(host: str) -> str:
    """The address of the one node of a Ray of one's own: a node cannot have every address."""
    return "127.0.0.1" if host == EVERY_ADDRESS else host


def rank_of(context: object) -> int:
    """A replica's number among its deployment's; a replica that replaces another takes its own."""
    rank = getattr(context, "rank", 0)
    return int(getattr(rank, "rank", rank) or 0)


def observe(service: str, settings: InferenceSettings, *, place: int, rank: int) -> None:
    """Sets up a replica's logs and traces, and serves its metrics.

    Args:
        service: Its name in logs and traces.
        settings: Of the service.
        place: 0 for pumps, from 1 for the engines of each model, in the order of the models.
        rank: The replica's number in its deployment.
    """
    configure_logs(service, settings.log_level)
    configure_traces(service, settings)
    if settings.metrics_port:
        if rank >= PORTS_PER_PLACE:  # the next deployment's ports begin there
            log.warning("metrics are not served", rank=rank, ports=PORTS_PER_PLACE)
            return
        port = settings.metrics_port + PORTS_PER_PLACE * place + rank
        try:
            serve_metrics(settings.host, port)
        except OSError as error:
            # A replica that is being replaced may still hold the port.
            log.warning("metrics are not served", port=port, error=str(error))
