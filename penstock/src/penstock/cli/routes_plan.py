"""Which routes have to be written: pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

from google.protobuf import json_format

from penstock.cli.run import CliError
from penstock.codec import decode
from penstock.errors import InvalidRequest
from penstock.records import Record
from penstock.v1 import route_pb2

__all__ = ["changes", "newest", "parse"]


def parse(text: str) -> list[route_pb2.Route]:
    """A JSON list of routes.

    Raises:
        CliError: It is none, or a route could not serve; says which and why.
    """
    try:
        entries = json.loads(text)
    except ValueError as error:
        raise CliError(f"the routes are not JSON: {error}") from error
    if not isinstance(entries, list) or not entries:
        raise CliError("the routes must be a JSON list with at least one penstock.v1.Route")
    routes = []
    for index, entry in enumerate(entries):
        try:
            route = json_format.ParseDict(entry, route_pb2.Route())
        except json_format.ParseError as error:
            raise CliError(f"entry {index} is not a Route: {error}") from error
        _check(route, index)
        routes.append(route)
    models = [route.model for route in routes]
    if len(set(models)) < len(models):
        raise CliError("a model has two routes in the file; keep one")
    return routes


def newest(records: Iterable[Record]) -> dict[str, route_pb2.Route]:
    """The route with the highest version of each model; a tombstone ends a model.

    A record that is no route is passed over, as readers of the topic do.
    """
    routes: dict[str, route_pb2.Route] = {}
    for record in records:
        if record.value is None:
            routes.pop((record.key or b"").decode("utf-8", "replace"), None)
            continue
        try:
            route = decode(record, route_pb2.Route)
        except InvalidRequest:
            continue
        known = routes.get(route.model)
        if known is None or route.version >= known.version:
            routes[route.model] = route
    return routes


def changes(
    wanted: Sequence[route_pb2.Route],
    present: Mapping[str, route_pb2.Route],
    *,
    keep_newer: bool = False,
) -> list[route_pb2.Route]:
    """Those of the wanted routes that are not there yet.

    Args:
        wanted: At most one per model.
        present: The newest of each model on the log.
        keep_newer: Pass over a route whose model has a newer version, as a stack does that
            comes up again with the file of its first day.

    Raises:
        CliError: A wanted version is lower than the one there, or the same with other content.
    """
    new = []
    for route in wanted:
        known = present.get(route.model)
        if known is None or route.version > known.version:
            new.append(route)
        elif route.version < known.version:
            if keep_newer:
                continue
            raise CliError(
                f"{route.model}: version {known.version} is there and the file has "
                f"{route.version}; readers refuse a lower one, so raise it "
                "(or pass over it with --keep-newer)"
            )
        elif route != known:
            raise CliError(
                f"{route.model}: version {route.version} is there with other content; "
                f"raise it to {known.version + 1}"
            )
    return new


def _check(route: route_pb2.Route, index: int) -> None:
    who = route.model or f"entry {index}"
    if not route.model:
        raise CliError(f"{who}: model is missing")
    if route.version < 1:
        raise CliError(f"{who}: version must be at least 1")
    names = [variant.name for variant in route.variants]
    if not names or not all(names) or len(set(names)) < len(names):
        raise CliError(f"{who}: every variant needs a name of its own, and there must be one")
    if not all(variant.base_model for variant in route.variants):
        raise CliError(f"{who}: every variant needs a base_model")
    if not sum(v.weight for v in route.variants if v.stage != route_pb2.STAGE_SHADOW):
        raise CliError(f"{who}: some variant that is not a shadow needs a weight above 0")
