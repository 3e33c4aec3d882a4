"""The Ray Serve applications: one per base model, and one of the pumps that feed them.

Each is an application of its own, so that a model that cannot start keeps nothing else from
starting, and can be deployed again alone. The pump finds engine replicas through the directory and
talks to them on streams of its own; Ray keeps placement, restarts, health and rollout.
"""

from __future__ import annotations

from typing import Any

from ray import serve

from penstock_inference.engines.models import Model
from penstock_inference.replicas.engine_replica import EngineReplica
from penstock_inference.replicas.pump_replica import PumpReplica
from penstock_inference.scaling.autoscaler import autoscaling_config
from penstock_inference.scaling.decision import Targets
from penstock_inference.settings import InferenceSettings

__all__ = ["PUMPS", "build", "build_engines", "build_pumps", "engines_of"]

UNBOUNDED_SLOTS = 128  # of an engine that takes as much as comes, for scaling
PUMPS = "penstock"  # the pumps' application


def engines_of(model_name: str) -> str:
    """The name of a base model's application, and of its deployment."""
    return f"engine-{model_name}"


def build(settings: InferenceSettings) -> dict[str, serve.Application]:
    """Every application, by its name.

    Raises:
        SettingsError: The models' file cannot be read, or declares what cannot be.
    """
    models = settings.base_models()
    engines = {
        engines_of(model.name): build_engines(settings, model, place)
        for place, model in enumerate(models, 1)
    }
    return {**engines, PUMPS: build_pumps(settings)}


def build_engines(settings: InferenceSettings, model: Model, place: int) -> serve.Application:
    """A base model's engines.

    Args:
        settings: Of the service.
        model: The base model.
        place: Its place among the models, from 1.
    """
    return serve.deployment(
        EngineReplica,
        name=engines_of(model.name),
        **_replicas(settings, model),
        ray_actor_options={"num_cpus": model.cpus, "num_gpus": model.gpus},
        graceful_shutdown_timeout_s=_bound_s(settings),
        health_check_period_s=10,
        health_check_timeout_s=90,
    ).bind(settings, model, place)


def _replicas(settings: InferenceSettings, model: Model) -> dict[str, Any]:
    bounds = model.replicas
    if bounds.min == bounds.max:
        return {"num_replicas": bounds.min}
    requests = round((model.max_running or UNBOUNDED_SLOTS) * settings.scale_target)
    targets = Targets(
        requests=max(1, requests),
        tokens=max(1, requests) * settings.scale_tokens,
        up_after_s=settings.scale_up_after_s,
        down_after_s=settings.scale_down_after_s,
    )
    scaling = autoscaling_config(
        model.name, minimum=bounds.min, maximum=bounds.max, targets=targets
    )
    return {"autoscaling_config": scaling}


def build_pumps(settings: InferenceSettings) -> serve.Application:
    """The pumps."""
    return serve.deployment(
        PumpReplica,
        name="pump",
        num_replicas=settings.pump_replicas,
        ray_actor_options={"num_cpus": 0},
        graceful_shutdown_timeout_s=_bound_s(settings),
        health_check_period_s=2,
        health_check_timeout_s=20,
    ).bind(settings)


def _bound_s(settings: InferenceSettings) -> float:
    # Serve's shutdown bound must outlast our own drain.
    return settings.drain_s + 10
