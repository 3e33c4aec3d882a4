"""The applications as KubeRay's RayService builds them, with settings from the pod."""

from __future__ import annotations

from collections.abc import Mapping

from ray import serve

from penstock_inference.replicas.deployments import build_engines, build_pumps
from penstock_inference.settings import InferenceSettings

__all__ = ["engines", "pumps"]


def pumps(arguments: Mapping[str, str]) -> serve.Application:
    """Builds the pumps; Serve calls it with the `args` of its configuration.

    Raises:
        SettingsError: The environment does not make valid settings.
        ValueError: There are arguments; settings come from the environment alone.
    """
    if arguments:
        raise ValueError("no args are taken: set PENSTOCK_INFERENCE_* variables instead")
    return build_pumps(InferenceSettings.load())


def engines(arguments: Mapping[str, str]) -> serve.Application:
    """Builds the engines of the base model that the argument `model` names.

    Raises:
        SettingsError: The environment does not make valid settings.
        ValueError: No such model is declared, or there are other arguments.
    """
    settings = InferenceSettings.load()
    models = settings.base_models()
    if set(arguments) != {"model"}:
        raise ValueError("one arg is taken: model, the name of a declared base model")
    for place, model in enumerate(models, 1):
        if model.name == arguments["model"]:
            return build_engines(settings, model, place)
    declared = ", ".join(model.name for model in models)
    raise ValueError(f"no base model {arguments['model']}: declared are {declared}")
