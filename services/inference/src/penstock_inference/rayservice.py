"""The application as KubeRay's RayService builds it, with settings from the pod's environment."""

from __future__ import annotations

from collections.abc import Mapping

from ray import serve

from penstock_inference.deployments import build
from penstock_inference.settings import InferenceSettings

__all__ = ["application"]


def application(arguments: Mapping[str, str]) -> serve.Application:
    """Builds the application; Serve calls it with the `args` of its configuration.

    Raises:
        SettingsError: The environment does not make valid settings.
        ValueError: There are arguments; settings come from the environment alone.
    """
    if arguments:
        raise ValueError("no args are taken: set PENSTOCK_INFERENCE_* variables instead")
    return build(InferenceSettings.load())
