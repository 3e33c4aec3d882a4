"""The Ray Serve deployments: engines, and the pumps that feed them.

The pump finds engine replicas through the directory and talks to them on streams of its own; Ray
keeps placement, restarts, health and rollout.
"""

from __future__ import annotations

from ray import serve

from penstock_inference.engine_replica import EngineReplica
from penstock_inference.pump_replica import PumpReplica
from penstock_inference.settings import InferenceSettings

__all__ = ["build"]


def build(settings: InferenceSettings) -> serve.Application:
    """The application: engines first, then the pumps that feed them."""
    # Serve's shutdown bound must outlast our own drain.
    bound_s = settings.drain_s + 10
    engine = serve.deployment(
        EngineReplica,
        name="engine",
        num_replicas=settings.engine_replicas,
        ray_actor_options={"num_cpus": settings.engine_cpus, "num_gpus": settings.engine_gpus},
        graceful_shutdown_timeout_s=bound_s,
        health_check_period_s=10,
        health_check_timeout_s=90,
    ).bind(settings)
    return serve.deployment(
        PumpReplica,
        name="pump",
        num_replicas=settings.pump_replicas,
        ray_actor_options={"num_cpus": 0},
        graceful_shutdown_timeout_s=bound_s,
        health_check_period_s=2,
        health_check_timeout_s=20,
    ).bind(settings, engine)
