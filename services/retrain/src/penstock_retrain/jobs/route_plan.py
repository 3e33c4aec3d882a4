"""What a job's changes make of a route. Pure.

Weights: a split of p per cent gives the candidate p * 100 of 10,000 and scales the others to the
rest, which keeps their units where they are (weighted rendezvous hashing looks at ratios only).
"""

from __future__ import annotations

from penstock.errors import InvalidRequest
from penstock.routing import check_route
from penstock.v1 import route_pb2
from penstock_retrain.jobs.stages import Candidate, RouteChange, RouteChangeKind, StageBroken

__all__ = [
    "base_of",
    "champion_of",
    "changed",
    "names",
    "percent_of",
    "rebased",
    "shadow_of",
    "taken_away",
]

WHOLE = 10_000
_CHAMPION = route_pb2.STAGE_CHAMPION
_CANDIDATE = route_pb2.STAGE_CANDIDATE
_SHADOW = route_pb2.STAGE_SHADOW


def changed(
    route: route_pb2.Route, change: RouteChange, before: route_pb2.Route | None = None
) -> route_pb2.Route | None:
    """The route after a change, under the next version; None where it says so already.

    Args:
        route: As it stands.
        change: What is to be done.
        before: Of a restoration, the route that the promotion was made from.

    Raises:
        StageBroken: The change cannot be made of this route; the message says why.
    """
    made = route_pb2.Route()
    made.CopyFrom(route)
    match change.kind:
        case RouteChangeKind.SHADOW:
            _set(made, change.candidate, _SHADOW, max(1, round(_checked(change))))
        case RouteChangeKind.SPLIT:
            _split(made, change.candidate, _checked(change))
        case RouteChangeKind.PROMOTE:
            _promote(made, change.candidate)
        case RouteChangeKind.WITHDRAW:
            _withdraw(made, change.candidate)
        case RouteChangeKind.RESTORE:
            _restore(made, change.candidate, before)
        case RouteChangeKind.SETTLE:
            pass
    if made == route:
        return None
    made.version = route.version + 1
    try:
        check_route(made)
    except InvalidRequest as error:
        raise StageBroken(
            f"{route.model}: {change.kind} of {change.candidate.name} makes no route that could "
            f"serve: {error.field}: {error.message}"
        ) from error
    return made


def rebased(
    standing: route_pb2.Route, change: RouteChange, base: route_pb2.Route
) -> route_pb2.Route | None:
    """A change that was made of `base`, made of a route that somebody else wrote meanwhile.

    None where it must not be: somebody else has changed what the candidate gets, and only what
    takes traffic from it may come after that, or has made another one champion, over whom nobody
    meant to promote it. None also where the route says so already.

    Args:
        standing: Somebody else's route.
        change: What was to be done.
        base: The route that it was made from; of a restoration also the one that it restores.
    """
    name = change.candidate.name
    gives = change.kind not in (RouteChangeKind.WITHDRAW, RouteChangeKind.RESTORE)
    if gives and _find(standing, name) != _find(base, name):
        return None
    promotes = change.kind is RouteChangeKind.PROMOTE
    if promotes and champion_of(standing) != champion_of(base):
        return None
    try:
        return changed(standing, change, base)
    except StageBroken:
        return None


def champion_of(route: route_pb2.Route) -> str:
    """The champion's name; empty where the route has none."""
    return next((v.name for v in route.variants if v.stage == _CHAMPION), "")


def base_of(route: route_pb2.Route) -> str:
    """The engine's model that the champion answers with; empty where the route has none."""
    return next((v.base_model for v in route.variants if v.stage == _CHAMPION), "")


def names(route: route_pb2.Route, version: str) -> bool:
    """Whether engines need a version's weights for a route, with or without traffic."""
    return any(version in (v.name, v.base_model, v.adapter) for v in route.variants)


def percent_of(route: route_pb2.Route, name: str) -> float:
    """What a variant has of the traffic, per cent."""
    found = _find(route, name)
    serving = [v for v in route.variants if v.stage in (_CHAMPION, _CANDIDATE)]
    total = sum(variant.weight for variant in serving)
    if found is None or found.stage not in (_CHAMPION, _CANDIDATE) or not total:
        return 0.0
    return 100 * found.weight / total


def shadow_of(route: route_pb2.Route, candidate: Candidate) -> float:
    """Of how many requests a candidate gets copies, per cent."""
    found = _find(route, candidate.name)
    return float(found.weight) if found is not None and found.stage == _SHADOW else 0.0


def taken_away(route: route_pb2.Route, candidate: Candidate, *, was_there: bool) -> bool:
    """Whether somebody took the candidate's traffic: it has no weight, or is there no more.

    Args:
        route: As it stands.
        candidate: The candidate.
        was_there: Whether its job has put it there before.
    """
    found = _find(route, candidate.name)
    if found is None:
        return was_there
    return found.stage == _CANDIDATE and not found.weight


def _checked(change: RouteChange) -> float:
    if not 0 < change.percent <= 100:
        raise StageBroken(
            f"{change.kind} of {change.percent:g} per cent: give more than 0 and at most 100"
        )
    return change.percent


def _find(route: route_pb2.Route, name: str) -> route_pb2.Variant | None:
    return next((variant for variant in route.variants if variant.name == name), None)


def _champion(route: route_pb2.Route) -> route_pb2.Variant:
    found = next((variant for variant in route.variants if variant.stage == _CHAMPION), None)
    if found is None:
        raise StageBroken(f"{route.model} has no champion in version {route.version} of its route")
    return found


def _set(
    route: route_pb2.Route, candidate: Candidate, stage: route_pb2.Stage.ValueType, weight: int
) -> route_pb2.Variant:
    """The candidate's variant with a stage and weight; made like the champion where missing."""
    champion = _champion(route)
    if champion.name == candidate.name:
        raise StageBroken(f"{candidate.name} is the champion of {route.model} already")
    found = _find(route, candidate.name)
    if found is None:
        # Prompt and defaults are the champion's: weights alone are what is compared.
        made = route_pb2.Variant()
        made.CopyFrom(champion)
        made.name, made.base_model = candidate.name, candidate.base_model
        made.adapter = candidate.adapter
        route.variants.append(made)
        found = route.variants[-1]
    found.stage, found.weight = stage, weight
    return found


def _split(route: route_pb2.Route, candidate: Candidate, percent: float) -> None:
    share = max(1, round(percent * WHOLE / 100))  # without any, it would count as withdrawn
    _set(route, candidate, _CANDIDATE, share)
    others = [
        v
        for v in route.variants
        if v.stage in (_CHAMPION, _CANDIDATE) and v.name != candidate.name and v.weight
    ]
    if not others:
        # Somebody gave the candidate all: what it is not to have goes back to the champion.
        others = [_champion(route)]
        others[0].weight = WHOLE
    total = sum(variant.weight for variant in others)
    for variant in others:
        # One that had traffic keeps some, unless the candidate takes all.
        weight = round(variant.weight * (WHOLE - share) / total)
        variant.weight = max(1, weight) if share < WHOLE else 0


def _promote(route: route_pb2.Route, candidate: Candidate) -> None:
    former = _champion(route)
    if former.name == candidate.name:
        return
    found = _find(route, candidate.name)
    if found is None:
        found = _set(route, candidate, _CANDIDATE, 0)
    # The former champion stays without weight: its adapter is loaded when it has to come back.
    former.stage, former.weight = _CANDIDATE, 0
    found.stage, found.weight = _CHAMPION, WHOLE
    kept = [
        v
        for v in route.variants
        if v.stage != _CANDIDATE or v.weight or v.name == former.name
    ]  # fmt: skip
    _replace(route, kept)


def _withdraw(route: route_pb2.Route, candidate: Candidate) -> None:
    found = _find(route, candidate.name)
    if found is None or found.stage == _CHAMPION:
        return
    champion = _champion(route)
    champion.weight = champion.weight or WHOLE
    # Gone from the route, so that no engine looks for its adapter; what it was given and has not
    # begun to answer is chosen again.
    _replace(route, [v for v in route.variants if v.name != candidate.name])


def _restore(route: route_pb2.Route, candidate: Candidate, before: route_pb2.Route | None) -> None:
    if _champion(route).name != candidate.name:
        # Somebody else has made another one champion: that stands.
        _withdraw(route, candidate)
        return
    if before is None:
        raise StageBroken(f"nothing is known of the champion before {candidate.name}")
    former = _champion(before)
    found = _find(route, former.name)
    if found is None:
        route.variants.add().CopyFrom(former)
        found = route.variants[-1]
        known = {template.version for template in route.prompt_templates}
        for template in before.prompt_templates:
            if template.version not in known:
                route.prompt_templates.add().CopyFrom(template)
    found.stage, found.weight = _CHAMPION, WHOLE
    _replace(route, [v for v in route.variants if v.name != candidate.name])


def _replace(route: route_pb2.Route, variants: list[route_pb2.Variant]) -> None:
    copies = [route_pb2.Variant.FromString(v.SerializeToString()) for v in variants]
    del route.variants[:]
    route.variants.extend(copies)
