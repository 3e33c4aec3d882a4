"""Runs the Ray Serve applications: starts or joins Ray, deploys, keeps watch, drains."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Mapping, Sequence

import ray
from ray import serve
from ray.serve.schema import ApplicationStatus, ApplicationStatusOverview

from penstock.telemetry import configure_logs, logger
from penstock_inference.engines.models import Model
from penstock_inference.replicas.deployments import PUMPS, build
from penstock_inference.replicas.replica import single_node
from penstock_inference.settings import InferenceSettings
from penstock_inference.supervision import Supervision

__all__ = ["run"]

log = logger(__name__)

WATCH_S = 2.0
_FAILED = {ApplicationStatus.DEPLOY_FAILED}


def run(settings: InferenceSettings) -> None:
    """Serves until SIGTERM or SIGINT, then drains within the settings' bound.

    Raises:
        SettingsError: No base model can be served.
        DeployError: The pumps or all engines failed to start.
    """
    configure_logs("inference", settings.log_level)
    models = settings.base_models()
    if not settings.ray_address:  # elsewhere the models lie on the engines' nodes
        for name, problems in settings.check_models().items():
            log.error("model cannot be served", model=name, problems=problems)
    ended = threading.Event()
    _start_ray(settings, models)
    # After Ray's start: Ray installs handlers of its own, which end the process at once.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    try:
        serve.start(proxy_location="Disabled")
        log.info("deploying", models=[model.name for model in models])
        applications = build(settings)
        _deploy(applications)
        _watch(applications, ended)
        log.info("draining", bound_s=settings.drain_s)
    finally:
        if not settings.ray_address:
            serve.shutdown()
        ray.shutdown()
    log.info("stopped")


def _deploy(applications: Mapping[str, serve.Application]) -> None:
    serve.run_many(
        [serve.RunTarget(app, name=name, route_prefix=None) for name, app in applications.items()],
        wait_for_applications_running=False,
    )


def _watch(applications: Mapping[str, serve.Application], ended: threading.Event) -> None:
    """Returns when the process is to end; meanwhile deploys again what failed."""
    supervision = Supervision(applications.keys() - {PUMPS}, PUMPS)
    known: dict[str, ApplicationStatus] = {}
    while not ended.wait(WATCH_S):
        found = serve.status().applications
        failed = {n: _reason(a) for n, a in found.items() if a.status in _FAILED}
        running = [n for n, a in found.items() if a.status == ApplicationStatus.RUNNING]
        for name, application in found.items():
            if known.get(name) != application.status:
                known[name] = application.status
                level = logging.ERROR if name in failed else logging.INFO
                log.log(
                    level,
                    "application",
                    name=name,
                    status=application.status.value,
                    reason=_reason(application),
                )
        again = supervision.look(failed, running, time.monotonic())
        if again:
            log.info("deploying again", applications=again)
            _deploy({name: applications[name] for name in again})


def _reason(application: ApplicationStatusOverview) -> str:
    """Why an application is not well: the last line of each deployment's account, a traceback."""
    accounts = [d.message.strip().splitlines() for d in application.deployments.values()]
    return "; ".join(account[-1].strip() for account in accounts if account)


def _start_ray(settings: InferenceSettings, models: Sequence[Model]) -> None:
    if settings.ray_address:
        ray.init(address=settings.ray_address, namespace="penstock")
        return
    # Ray's default lets its workers wait for everything else on the machine: pump and engine would
    # yield to whoever publishes to them.
    os.environ.setdefault("RAY_worker_niceness", "0")
    cpus = sum(model.replicas.max * model.cpus for model in models)
    ray.init(
        address="local",  # never somebody else's cluster on this machine
        namespace="penstock",
        include_dashboard=False,
        object_store_memory=settings.object_store_mib * 1024 * 1024,
        num_cpus=max(2, round(cpus) + 1),
        _temp_dir=settings.ray_temp_dir or None,
        _node_ip_address=single_node(settings.host),
        log_to_driver=True,
    )
