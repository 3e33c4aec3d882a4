"""Routes and the choice of a variant, the same for whoever admits and whoever runs. Pure.

A route is checked and prepared once, when it is taken in; what happens per request is a look-up
and, where a route splits its traffic, one short hash per variant.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Iterator, Mapping

from penstock.errors import Code, InvalidRequest, Unavailable
from penstock.v1 import admitted_pb2, request_pb2, route_pb2

__all__ = [
    "RouteTable",
    "ServedRoute",
    "check_route",
    "choose_variant",
    "prepare",
    "prompt_of",
    "rechoose",
    "shadows",
    "unit_of",
    "variant_of",
    "withdrawn",
]

_SERVING = (route_pb2.STAGE_CHAMPION, route_pb2.STAGE_CANDIDATE)
_LISTED = 20
_MAX_NAME = 200
MAX_SHADOW_PERCENT = 100


@dataclasses.dataclass(frozen=True, slots=True)
class ServedRoute:
    """A route made ready for many look-ups; made by `prepare`, never changed.

    Attributes:
        route: As it stands on the log.
        model: The name that requests use.
        version: The route's version.
        serving: Champion and candidates that take traffic, each with its name in bytes.
        copies: Shadows that get copies, each with its name in bytes.
        variants: Every variant by name.
        prompts: The system prompts by template version.
    """

    route: route_pb2.Route
    model: str
    version: int
    serving: tuple[tuple[route_pb2.Variant, bytes], ...]
    copies: tuple[tuple[route_pb2.Variant, bytes], ...]
    variants: Mapping[str, route_pb2.Variant]
    prompts: Mapping[str, str]


def prepare(route: route_pb2.Route) -> ServedRoute:
    """A route ready for look-ups; unchecked, the argument must not change afterwards."""
    named = [(variant, _bytes(variant.name)) for variant in route.variants if variant.weight]
    return ServedRoute(
        route=route,
        model=route.model,
        version=route.version,
        serving=tuple(pair for pair in named if pair[0].stage in _SERVING),
        copies=tuple(pair for pair in named if pair[0].stage == route_pb2.STAGE_SHADOW),
        variants={variant.name: variant for variant in route.variants},
        prompts={template.version: template.system for template in route.prompt_templates},
    )


class RouteTable:
    """The newest route of each model.

    Attributes:
        refused: Routes that were not taken in because they were not newer.
    """

    def __init__(self) -> None:
        self.refused = 0
        self._routes: dict[str, ServedRoute] = {}

    def __len__(self) -> int:
        return len(self._routes)

    def apply(self, route: route_pb2.Route) -> bool:
        """Takes a route in; False, and counted, for one that is not newer than what is there.

        Raises:
            InvalidRequest: The route could not serve; the one that is there stays.
        """
        known = self._routes.get(route.model)
        if known is not None and route.version <= known.version:
            self.refused += 1
            return False
        check_route(route)
        self._routes[route.model] = prepare(route)
        return True

    def remove(self, model: str) -> None:
        """Forgets a model, its version too; does nothing where there is none."""
        self._routes.pop(model, None)

    def models(self) -> list[route_pb2.Route]:
        """Every route, by model."""
        return [self._routes[model].route for model in sorted(self._routes)]

    def get(self, model: str) -> ServedRoute | None:
        """The route of a model, if there is one."""
        return self._routes.get(model)

    def find(self, model: str) -> ServedRoute:
        """The route of a model; the only one for an empty name.

        Raises:
            InvalidRequest: There is none (ERROR_CODE_UNKNOWN_MODEL), or the empty name has a
                choice of several.
            Unavailable: There is no route at all yet.
        """
        route = self._routes.get(model)
        if route is not None:
            return route
        if not self._routes:
            raise Unavailable("no model is routed yet; write one with: penstock routes apply")
        if not model:
            if len(self._routes) > 1:
                raise InvalidRequest(f"name a model; there are: {self._names()}", field="model")
            return next(iter(self._routes.values()))
        raise InvalidRequest(
            f"model {model[:100]!r} is not served; there are: {self._names()}",
            code=Code.ERROR_CODE_UNKNOWN_MODEL,
            field="model",
        )

    def _names(self) -> str:
        names = sorted(self._routes)
        more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
        return ", ".join(names[:_LISTED]) + more


def unit_of(route: ServedRoute, request: request_pb2.GenerateRequest, request_id: str) -> str:
    """What keeps its variant for as long as the weights stay, as the route's `sticky_by` says.

    Args:
        route: The route.
        request: With its tenant filled in.
        request_id: Its id.
    """
    sticky_by = route.route.sticky_by
    if request.ordering_key and sticky_by != route_pb2.STICKY_BY_TENANT:
        return f"key\0{request.tenant}\0{request.ordering_key}"
    if sticky_by:
        return f"tenant\0{request.tenant}"
    return f"request\0{request.tenant}\0{request_id}"


def choose_variant(route: ServedRoute, unit: str) -> route_pb2.Variant:
    """The champion or candidate that answers for a unit.

    Weighted rendezvous hashing, salted with the model's name: a unit keeps its variant for as
    long as the weights stay, and when one variant's weight rises, units move to that one only.
    A variant's own name is hashed with it, so that every new candidate draws other units than
    the last one did.

    Raises:
        Unavailable: No champion or candidate has any weight.
    """
    serving = route.serving
    if len(serving) == 1:
        return serving[0][0]
    if not serving:
        raise Unavailable(
            f"no variant of {route.model} takes traffic in version {route.version} of its route"
        )
    prefix = _bytes(f"{route.model}\0{unit}\0")
    best, best_score = serving[0][0], -1.0
    for variant, name in serving:
        score = -variant.weight / math.log(_uniform(prefix + name, b"variant"))
        if score > best_score or (score == best_score and variant.name > best.name):
            best, best_score = variant, score
    return best


def variant_of(route: ServedRoute, name: str) -> route_pb2.Variant | None:
    """The variant of that name, whatever its stage and weight; None where the route has none."""
    return route.variants.get(name)


def withdrawn(route: ServedRoute, variant_name: str) -> bool:
    """Whether a variant takes no clients' traffic any more.

    True where the route has no such variant, where its weight is 0, and where it is neither
    champion nor candidate. Asked about clients' requests only: replays, shadow copies and probes
    keep their variant.
    """
    variant = route.variants.get(variant_name)
    return variant is None or not variant.weight or variant.stage not in _SERVING


def rechoose(route: ServedRoute, admitted: admitted_pb2.AdmittedRequest) -> route_pb2.Variant:
    """The variant for a request whose own was withdrawn before its first text.

    The same as admission by this route would choose, so that a conversation goes on together.

    Raises:
        Unavailable: No champion or candidate has any weight.
    """
    return choose_variant(route, unit_of(route, admitted.request, admitted.request_id))


def prompt_of(route: ServedRoute, variant: route_pb2.Variant) -> str:
    """The words that a variant puts before every conversation; empty where it has none."""
    return route.prompts.get(variant.prompt_template_version, "")


def shadows(route: ServedRoute, request_id: str) -> list[route_pb2.Variant]:
    """The shadows that get a copy of a request: each draws its percentage of the request ids.

    The draw is the same whenever it is repeated, and independent between shadows and of the
    choice of the variant that answers.
    """
    if not route.copies:
        return []
    prefix = _bytes(f"{route.model}\0{request_id}\0")
    return [
        variant
        for variant, name in route.copies
        if variant.weight >= MAX_SHADOW_PERCENT
        or _uniform(prefix + name, b"shadow") * MAX_SHADOW_PERCENT < variant.weight
    ]


def check_route(route: route_pb2.Route) -> None:
    """Finds what is wrong with a route before it serves.

    Raises:
        InvalidRequest: With the field at fault, as the contract writes it, and the remedy.
    """
    for fault, field, message in _faults(route):
        if fault:
            raise InvalidRequest(message, field=field)


def _faults(route: route_pb2.Route) -> Iterator[tuple[bool, str, str]]:
    yield not route.model, "model", "model is missing"
    yield len(route.model) > _MAX_NAME, "model", f"at most {_MAX_NAME} characters are allowed"
    yield route.version < 1, "version", "version must be at least 1"
    yield not route.variants, "variants", "there must be at least one variant, the champion"
    yield (
        route.sticky_by not in route_pb2.StickyBy.values(),
        "sticky_by",
        f"{route.sticky_by} is not known; leave it out, or set STICKY_BY_KEY_OR_TENANT or "
        "STICKY_BY_TENANT",
    )
    templates: set[str] = set()
    for index, template in enumerate(route.prompt_templates):
        field = f"prompt_templates[{index}].version"
        yield not template.version, field, "every prompt template needs a version"
        yield template.version in templates, field, f"{template.version!r} is there twice"
        templates.add(template.version)
    names: set[str] = set()
    for index, variant in enumerate(route.variants):
        yield from _variant_faults(variant, f"variants[{index}]", names, templates)
        names.add(variant.name)
    champions = sum(v.stage == route_pb2.STAGE_CHAMPION for v in route.variants)
    yield (
        champions != 1,
        "variants",
        f"exactly one variant must be STAGE_CHAMPION; there are {champions}",
    )
    yield (
        not any(v.weight for v in route.variants if v.stage in _SERVING),
        "variants",
        "some champion or candidate needs a weight above 0, or nobody answers",
    )


def _variant_faults(
    variant: route_pb2.Variant, at: str, names: set[str], templates: set[str]
) -> Iterator[tuple[bool, str, str]]:
    name, version = variant.name, variant.prompt_template_version
    yield not name, f"{at}.name", "every variant needs a name of its own"
    yield name in names, f"{at}.name", f"{name!r} is there twice; names are unique in a route"
    yield len(name) > _MAX_NAME, f"{at}.name", f"at most {_MAX_NAME} characters are allowed"
    # It parts a shadow copy's id from its variant.
    yield "~" in name, f"{at}.name", f"{name!r} must not hold ~"
    yield (
        not variant.base_model,
        f"{at}.base_model",
        f"variant {name!r} needs a base_model"
        + (f", the one that adapter {variant.adapter!r} was made for" if variant.adapter else ""),
    )
    yield (
        variant.stage not in (*_SERVING, route_pb2.STAGE_SHADOW),
        f"{at}.stage",
        f"variant {name!r} needs a stage: STAGE_CHAMPION, STAGE_CANDIDATE or STAGE_SHADOW",
    )
    yield (
        variant.stage == route_pb2.STAGE_SHADOW and variant.weight > MAX_SHADOW_PERCENT,
        f"{at}.weight",
        f"the weight of shadow {name!r} is the percentage of requests that it gets copies of: "
        f"at most {MAX_SHADOW_PERCENT}",
    )
    yield (
        bool(version) and version not in templates,
        f"{at}.prompt_template_version",
        f"prompt template {version!r} is not in prompt_templates",
    )


def _uniform(data: bytes, purpose: bytes) -> float:
    digest = hashlib.blake2b(data, digest_size=8, person=purpose).digest()
    # 52 bits and a half fill a float exactly: in (0, 1) and never rounded to an end, whose
    # logarithm would be no number to divide by.
    return ((int.from_bytes(digest, "big") >> 12) + 0.5) / 2**52


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")
