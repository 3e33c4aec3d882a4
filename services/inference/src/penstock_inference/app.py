"""Runs the Ray Serve application: starts or joins Ray, deploys, waits for a signal, drains."""

from __future__ import annotations

import signal
import threading

import ray
from ray import serve

from penstock.telemetry import configure_logs, logger
from penstock_inference.deployments import build
from penstock_inference.settings import InferenceSettings

__all__ = ["run"]

log = logger(__name__)

APPLICATION = "penstock"


def run(settings: InferenceSettings) -> None:
    """Serves until SIGTERM or SIGINT, then drains within the settings' bound."""
    configure_logs("inference", settings.log_level)
    if not settings.ray_address:  # elsewhere the model lies on the engines' nodes
        settings.check_model()
    ended = threading.Event()
    _start_ray(settings)
    # After Ray's start: Ray installs handlers of its own, which end the process at once.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    try:
        serve.start(proxy_location="Disabled")
        log.info("deploying", engine=settings.engine, model=settings.model)
        serve.run(build(settings), name=APPLICATION, route_prefix=None, blocking=False)
        log.info("serving")
        ended.wait()
        log.info("draining", bound_s=settings.drain_s)
    finally:
        if not settings.ray_address:
            serve.shutdown()
        ray.shutdown()
    log.info("stopped")


def _start_ray(settings: InferenceSettings) -> None:
    if settings.ray_address:
        ray.init(address=settings.ray_address, namespace="penstock")
        return
    ray.init(
        address="local",  # never somebody else's cluster on this machine
        namespace="penstock",
        include_dashboard=False,
        object_store_memory=settings.object_store_mib * 1024 * 1024,
        num_cpus=max(2, round(settings.engine_replicas * settings.engine_cpus) + 1),
        _temp_dir=settings.ray_temp_dir or None,
        _node_ip_address=settings.host,
        log_to_driver=True,
    )
