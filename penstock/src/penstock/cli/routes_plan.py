"""Which routes have to be written, and what a change makes of one: pure."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence

from google.protobuf import json_format

from penstock.cli.run import CliError
from penstock.codec import decode
from penstock.errors import InvalidRequest
from penstock.records import Record
from penstock.routing import check_route
from penstock.v1 import route_pb2

__all__ = [
    "Version",
    "changes",
    "check_alone",
    "history",
    "newest",
    "parse",
    "parse_weights",
    "restored",
    "reweighted",
    "rolled_back",
    "share",
]

# What a champion without a weight gets when all traffic comes back to it.
WHOLE = 100
MAX_WEIGHT = 2**32 - 1


@dataclasses.dataclass(frozen=True)
class Version:
    """A route as it was written.

    Attributes:
        route: The route.
        written_ms: When, in milliseconds since 1970.
        writer: The service that wrote it.
    """

    route: route_pb2.Route
    written_ms: int
    writer: str


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
        _check(route, f"entry {index}")
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


def reweighted(route: route_pb2.Route, weights: Mapping[str, int]) -> route_pb2.Route:
    """The route with other weights and the next version; the same route where nothing changes.

    Raises:
        CliError: The route has no such variant, or could not serve with these weights.
    """
    variants = {variant.name: variant for variant in route.variants}
    unknown = sorted(set(weights) - set(variants))
    if unknown:
        raise CliError(
            f"{route.model} has no variant {', '.join(unknown)}; there are: "
            f"{', '.join(variants)}. Write a new one with: penstock routes apply FILE"
        )
    new = _copy(route)
    for variant in new.variants:
        variant.weight = weights.get(variant.name, variant.weight)
    return _next(new, route)


def rolled_back(route: route_pb2.Route) -> route_pb2.Route:
    """The route with all traffic at the champion and the next version; the same if it is so.

    Candidates stay in the route with a weight of 0: what they were given is chosen again.
    Shadows stay as they are, since no client sees them.
    """
    new = _copy(route)
    for variant in new.variants:
        if variant.stage == route_pb2.STAGE_CHAMPION:
            variant.weight = variant.weight or WHOLE
        elif variant.stage == route_pb2.STAGE_CANDIDATE:
            variant.weight = 0
    return _next(new, route)


def restored(route: route_pb2.Route, history: Sequence[Version], version: int) -> route_pb2.Route:
    """The content of an earlier version under the next version.

    Raises:
        CliError: That version is the newest one, or is not on the log any more.
    """
    if version >= route.version:
        raise CliError(f"{route.model}: version {route.version} is the newest; name an earlier one")
    for entry in reversed(history):
        if entry.route.version == version:
            return _next(_copy(entry.route), route)
    there = ", ".join(str(v) for v in sorted({entry.route.version for entry in history}))
    raise CliError(
        f"{route.model}: version {version} is not on the log, which keeps the newest for good and "
        f"older ones until it is compacted; there are: {there}. "
        "Write its content from a file with: penstock routes apply FILE"
    )


def history(records: Iterable[Record], model: str) -> list[Version]:
    """The versions of a model's route that are still on the log, as they were written."""
    versions = []
    for record in records:
        if record.value is None:
            continue
        try:
            route = decode(record, route_pb2.Route)
        except InvalidRequest:
            continue
        if route.model == model:
            writer = (record.header("ce_source") or "").rpartition("/")[2]
            versions.append(Version(route, record.timestamp_ms, writer))
    return versions


def check_alone(written: route_pb2.Route, records: Iterable[Record]) -> None:
    """Makes sure that nobody else wrote the same version at the same time.

    Raises:
        CliError: Somebody did: some readers keep the first one and others find the last.
    """
    for entry in history(records, written.model):
        if entry.route.version == written.version and entry.route != written:
            raise CliError(
                f"{written.model}: {entry.writer or 'somebody'} wrote version {written.version} at "
                "the same time, with other content, and readers may hold either; settle it with a "
                "higher version: look with `penstock routes history`, then repeat your change"
            )


def parse_weights(texts: Iterable[str]) -> dict[str, int]:
    """`variant=weight` pairs.

    Raises:
        CliError: One is no such pair, or names a variant again.
    """
    weights: dict[str, int] = {}
    for text in texts:
        name, _, number = text.rpartition("=")
        if not name or not (number.isascii() and number.isdigit()) or int(number) > MAX_WEIGHT:
            raise CliError(
                f"{text!r} is not VARIANT=WEIGHT with a whole number from 0 to {MAX_WEIGHT}"
            )
        if name in weights:
            raise CliError(f"variant {name} is there twice")
        weights[name] = int(number)
    return weights


def share(route: route_pb2.Route, variant: route_pb2.Variant) -> str:
    """What a variant gets of the traffic, for people."""
    if variant.stage == route_pb2.STAGE_SHADOW:
        return f"copies of {variant.weight} %"
    total = sum(v.weight for v in route.variants if v.stage != route_pb2.STAGE_SHADOW)
    return f"{100 * variant.weight / total:.4g} %" if total else "-"


def _copy(route: route_pb2.Route) -> route_pb2.Route:
    copy = route_pb2.Route()
    copy.CopyFrom(route)
    return copy


def _next(new: route_pb2.Route, standing: route_pb2.Route) -> route_pb2.Route:
    new.version = standing.version
    if new == standing:
        return standing
    new.version += 1
    _check(new, new.model)
    return new


def _check(route: route_pb2.Route, who: str) -> None:
    try:
        check_route(route)
    except InvalidRequest as error:
        raise CliError(f"{route.model or who}: {error.field}: {error.message}") from error
