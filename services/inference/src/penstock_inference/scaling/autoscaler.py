"""The scaling decision as a policy of Ray Serve's autoscaler; runs in Serve's controller.

Serve's own figures are of handle calls, and requests come to engines by streams that it does not
see. So the policy asks the directory for the work ahead, once a second and without ever waiting:
the controller's loop runs everything else meanwhile.
"""

from __future__ import annotations

import concurrent.futures
import logging
import time
from typing import Any, Protocol

import ray

from penstock_inference.scaling.decision import Bounds, Outlook, ScalingState, Targets, decide
from penstock_inference.scaling.directory import ACTOR_NAME

__all__ = ["WorkPolicy", "autoscaling_config"]

# Serve pickles this module by value, which a logger of structlog would not survive.
log = logging.getLogger("ray.serve")

ASK_S = 1.0
STALE_S = 5.0  # what was heard longer ago is not known any more


class Context(Protocol):
    """What is used of Serve's `AutoscalingContext`."""

    target_num_replicas: int
    capacity_adjusted_min_replicas: int
    capacity_adjusted_max_replicas: int


class WorkPolicy:
    """Decides for one base model's deployment; Serve makes one and calls it ten times a second.

    Args:
        model: The base model.
        targets: Fields of `Targets`.
    """

    def __init__(self, model: str, **targets: float) -> None:
        self._model = model
        self._targets = Targets(**targets)  # type: ignore[arg-type]
        self._state = ScalingState()
        self._directory: Any = None
        self._asked: concurrent.futures.Future[Outlook] | None = None
        self._asked_s = float("-inf")
        self._outlook = Outlook(None)
        self._heard_s = float("-inf")

    def __call__(self, context: Context) -> tuple[int, dict[str, Any]]:
        """How many replicas there shall be."""
        now_s = time.monotonic()
        self._ask(now_s)
        # What is not known changes nothing: a floor that was there holds as well.
        known = now_s - self._heard_s < STALE_S and self._outlook.load is not None
        bounds = Bounds(
            context.capacity_adjusted_min_replicas, context.capacity_adjusted_max_replicas
        )
        decision = decide(
            self._outlook.load if known else None,
            self._state,
            bounds.raised(self._outlook.floor) if known else bounds,
            self._targets,
            replicas=context.target_num_replicas,
            now_s=now_s,
        )
        self._state = decision.state
        if decision.replicas != context.target_num_replicas:
            log.info(
                "engines of %s: %d -> %d: %s (%s)",
                self._model,
                context.target_num_replicas,
                decision.replicas,
                decision.reason,
                self._outlook,
            )
        return decision.replicas, {}

    def _ask(self, now_s: float) -> None:
        if self._asked is not None and self._asked.done():
            try:
                self._outlook, self._heard_s = self._asked.result(), now_s
            except Exception as error:  # noqa: BLE001 - the actor restarts; it is asked again
                log.warning("the work ahead is not known: %r", error)
                self._directory = None
            self._asked = None
        if now_s - self._asked_s < (ASK_S if self._asked is None else STALE_S):
            return
        self._asked_s = now_s
        try:
            if self._directory is None:
                self._directory = ray.get_actor(ACTOR_NAME, namespace="penstock")
            self._asked = self._directory.outlook.remote(self._model).future()
        except Exception as error:  # noqa: BLE001 - before the first pump there is no directory
            log.debug("the directory cannot be asked: %r", error)
            self._directory = self._asked = None


def autoscaling_config(
    model: str, *, minimum: int, maximum: int, targets: Targets
) -> dict[str, Any]:
    """What Serve needs to know to scale a base model's deployment by its work."""
    return {
        "min_replicas": minimum,
        "max_replicas": maximum,
        # The decision has its own windows.
        "upscale_delay_s": 0,
        "downscale_delay_s": 0,
        "policy": {
            "policy_function": f"{__name__}:{WorkPolicy.__name__}",
            "policy_kwargs": {
                "model": model,
                "requests": targets.requests,
                "tokens": targets.tokens,
                "release": targets.release,
                "up_after_s": targets.up_after_s,
                "down_after_s": targets.down_after_s,
            },
        },
    }
