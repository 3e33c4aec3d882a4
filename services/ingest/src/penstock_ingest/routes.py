"""The table of routes, and the choice of a variant. Pure."""

from __future__ import annotations

import hashlib
import math

from penstock.errors import Code, InvalidRequest, Unavailable
from penstock.v1 import route_pb2

__all__ = ["RouteTable", "choose_variant"]

_SERVING = (route_pb2.STAGE_CHAMPION, route_pb2.STAGE_CANDIDATE)
_LISTED = 20


class RouteTable:
    """The newest route of each model."""

    def __init__(self) -> None:
        self._routes: dict[str, route_pb2.Route] = {}

    def __len__(self) -> int:
        return len(self._routes)

    def apply(self, route: route_pb2.Route) -> bool:
        """Takes a route in; False for one that is not newer than what is there."""
        known = self._routes.get(route.model)
        if known is not None and route.version <= known.version:
            return False
        self._routes[route.model] = route
        return True

    def remove(self, model: str) -> None:
        """Forgets a model; does nothing where there is none."""
        self._routes.pop(model, None)

    def models(self) -> list[route_pb2.Route]:
        """Every route, by model."""
        return [self._routes[model] for model in sorted(self._routes)]

    def find(self, model: str) -> route_pb2.Route:
        """The route of a model; the only one for an empty name.

        Raises:
            InvalidRequest: There is none (ERROR_CODE_UNKNOWN_MODEL), or the empty name has a
                choice of several.
            Unavailable: There is no route at all yet.
        """
        if not self._routes:
            raise Unavailable("no model is routed yet; write one with: penstock routes apply")
        if not model:
            if len(self._routes) > 1:
                raise InvalidRequest(f"name a model; there are: {self._names()}", field="model")
            return next(iter(self._routes.values()))
        route = self._routes.get(model)
        if route is None:
            raise InvalidRequest(
                f"model {model[:100]!r} is not served; there are: {self._names()}",
                code=Code.ERROR_CODE_UNKNOWN_MODEL,
                field="model",
            )
        return route

    def _names(self) -> str:
        names = sorted(self._routes)
        more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
        return ", ".join(names[:_LISTED]) + more


def choose_variant(route: route_pb2.Route, unit: str) -> route_pb2.Variant:
    """The variant that answers for a unit: an ordering key, or a tenant's request.

    Weighted rendezvous hashing, salted with the model's name: a unit keeps its variant for as
    long as the weights stay, and when one variant's weight rises, units move to that one only.

    Raises:
        Unavailable: No champion or candidate has any weight.
    """
    serving = [v for v in route.variants if v.stage in _SERVING and v.weight]
    if not serving:
        raise Unavailable(
            f"no variant of {route.model} takes traffic in version {route.version} of its route"
        )
    return max(serving, key=lambda variant: (_score(route.model, unit, variant), variant.name))


def _score(model: str, unit: str, variant: route_pb2.Variant) -> float:
    text = "\0".join((model, unit, variant.name)).encode("utf-8", "backslashreplace")
    digest = hashlib.blake2b(text, digest_size=8, person=b"variant").digest()
    # In (0, 1): neither end, whose logarithm would be no number to compare.
    uniform = (int.from_bytes(digest, "big") + 0.5) / 2**64
    return -variant.weight / math.log(uniform)
