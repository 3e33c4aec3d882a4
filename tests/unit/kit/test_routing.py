"""Which variant answers, what a route may say, and which copies are made."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import Code, InvalidRequest, Unavailable
from penstock.routing import (
    RouteTable,
    ServedRoute,
    check_route,
    choose_variant,
    prepare,
    prompt_of,
    rechoose,
    shadows,
    unit_of,
    variant_of,
    withdrawn,
)
from penstock.v1 import admitted_pb2, request_pb2, route_pb2

CHAMPION = {"name": "base", "base_model": "m", "weight": 100, "stage": "STAGE_CHAMPION"}


def route(*variants: dict[str, Any], **fields: Any) -> route_pb2.Route:
    """A route; variants by their difference from the champion."""
    body = {"model": "triage", "version": 1, **fields}
    body["variants"] = [{**CHAMPION, **variant} for variant in variants or ({},)]
    return json_format.ParseDict(body, route_pb2.Route())


def candidate(name: str, weight: int) -> dict[str, Any]:
    return {"name": name, "weight": weight, "stage": "STAGE_CANDIDATE"}


def shadow(name: str, weight: int) -> dict[str, Any]:
    return {"name": name, "weight": weight, "stage": "STAGE_SHADOW"}


def split(**weights: int) -> ServedRoute:
    """The first is the champion, the others are candidates."""
    first, *others = weights.items()
    champion = {"name": first[0], "weight": first[1]}
    return prepare(route(champion, *(candidate(n, w) for n, w in others)))


def test_shares_follow_the_weights() -> None:
    served = split(base=80, new=20)
    chosen = Counter(choose_variant(served, f"unit {n}").name for n in range(10_000))
    assert 1900 < chosen["new"] < 2100


def test_the_choice_is_the_same_for_good() -> None:
    # Others hold these choices on the log: an upgrade must not move a unit.
    served = split(base=50, new=50)
    chosen = [choose_variant(served, f"unit {n}").name for n in range(8)]
    assert chosen == ["new", "new", "base", "new", "new", "new", "new", "base"]


WEIGHTS = st.dictionaries(
    st.sampled_from("abcdefgh"), st.integers(0, 1000), min_size=2, max_size=6
).filter(lambda weights: sum(weights.values()) > 0)
UNITS = [f"key\0t\0{n}" for n in range(200)]


@given(WEIGHTS, st.data())
def test_a_weight_that_moves_moves_units_towards_its_variant_or_away_from_it_only(
    weights: dict[str, int], data: st.DataObject
) -> None:
    moved = data.draw(st.sampled_from(sorted(weights)))
    changed = {**weights, moved: data.draw(st.integers(0, 2000))}
    if not sum(changed.values()):
        changed[moved] = 1
    before, after = split(**weights), split(**changed)
    for unit in UNITS:
        was, now = choose_variant(before, unit).name, choose_variant(after, unit).name
        if changed[moved] >= weights[moved]:
            assert now in (was, moved)
        else:
            assert was in (now, moved)


@given(WEIGHTS.filter(lambda weights: sum(map(bool, weights.values())) > 1), st.data())
def test_a_withdrawn_variant_gives_its_own_units_away_and_no_others(
    weights: dict[str, int], data: st.DataObject
) -> None:
    gone = data.draw(st.sampled_from(sorted(name for name, w in weights.items() if w)))
    before, after = split(**weights), split(**{**weights, gone: 0})
    for unit in UNITS:
        was, now = choose_variant(before, unit).name, choose_variant(after, unit).name
        assert now != gone
        assert now == was or was == gone
    assert withdrawn(after, gone)
    assert not withdrawn(before, gone)


@given(WEIGHTS, st.integers(2, 50))
def test_the_scale_and_the_order_of_the_weights_mean_nothing(
    weights: dict[str, int], factor: int
) -> None:
    scaled = {name: weights[name] * factor for name in sorted(weights, reverse=True)}
    served, other = split(**weights), split(**scaled)
    assert [choose_variant(served, u).name for u in UNITS] == [
        choose_variant(other, u).name for u in UNITS
    ]


def test_without_any_weight_nobody_answers() -> None:
    with pytest.raises(Unavailable, match="version 1"):
        choose_variant(split(base=0), "unit")


@pytest.mark.parametrize(
    ("sticky_by", "ordering_key", "unit"),
    [
        ("STICKY_BY_UNSPECIFIED", "", "request\0acme\0req-1"),
        ("STICKY_BY_UNSPECIFIED", "talk", "key\0acme\0talk"),
        ("STICKY_BY_KEY_OR_TENANT", "", "tenant\0acme"),
        ("STICKY_BY_KEY_OR_TENANT", "talk", "key\0acme\0talk"),
        ("STICKY_BY_TENANT", "", "tenant\0acme"),
        ("STICKY_BY_TENANT", "talk", "tenant\0acme"),
    ],
)
def test_what_sticks_is_the_routes_choice(sticky_by: str, ordering_key: str, unit: str) -> None:
    request = request_pb2.GenerateRequest(tenant="acme", ordering_key=ordering_key)
    assert unit_of(prepare(route(sticky_by=sticky_by)), request, "req-1") == unit


@pytest.mark.parametrize(
    ("name", "gone"),
    [("base", False), ("new", False), ("off", True), ("shadow", True), ("never", True)],
)
def test_withdrawn_is_whatever_takes_no_clients_traffic(name: str, gone: bool) -> None:
    served = prepare(route({}, candidate("new", 5), candidate("off", 0), shadow("shadow", 100)))
    assert withdrawn(served, name) is gone
    found = variant_of(served, name)
    assert (found.name if found else None) == (None if name == "never" else name)


def test_choosing_again_keeps_a_conversation_together() -> None:
    before = split(base=50, old=50)
    after = split(base=50, old=0, new=50)
    for key in "abcdefghij":
        request = request_pb2.GenerateRequest(tenant="t", ordering_key=key)
        again = {
            rechoose(after, admitted_pb2.AdmittedRequest(request_id=f"r{n}", request=request)).name
            for n in range(20)
        }
        assert len(again) == 1
        assert again == {choose_variant(after, unit_of(after, request, "r0")).name}
        was = choose_variant(before, unit_of(before, request, "r0")).name
        assert "old" not in again
        assert was == "old" or again <= {"base", "new"}


def test_a_variants_words_come_from_its_template() -> None:
    served = prepare(
        route(
            {"prompt_template_version": "v2"},
            candidate("new", 1),
            prompt_templates=[
                {"version": "v1", "system": "Be long."},
                {"version": "v2", "system": "Be short."},
            ],
        )
    )
    assert prompt_of(served, served.variants["base"]) == "Be short."
    assert prompt_of(served, served.variants["new"]) == ""


def test_shadows_get_their_percentage_whatever_the_variant_that_answers() -> None:
    served = prepare(
        route(
            {},
            candidate("new", 100),
            shadow("all", 100),
            shadow("some", 20),
            shadow("few", 20),
            shadow("none", 0),
        )
    )
    ids = [f"req-{n}" for n in range(10_000)]
    copies = {i: {v.name for v in shadows(served, i)} for i in ids}
    counts = Counter(name for names in copies.values() for name in names)
    assert counts["all"] == len(ids)
    assert counts["none"] == 0
    assert 1900 < counts["some"] < 2100
    # Independent draws: of one another, and of the split between champion and candidate.
    assert 330 < sum({"some", "few"} <= names for names in copies.values()) < 470
    answered = [choose_variant(served, f"request\0t\0{i}").name for i in ids if "some" in copies[i]]
    assert 0.45 < answered.count("new") / len(answered) < 0.55
    assert copies == {i: {v.name for v in shadows(served, i)} for i in ids}


@pytest.mark.parametrize(
    ("changes", "field", "message"),
    [
        ({"model": ""}, "model", "missing"),
        ({"model": "m" * 201}, "model", "at most 200"),
        ({"version": 0}, "version", "at least 1"),
        ({"variants": []}, "variants", "at least one variant"),
        ({"sticky_by": 9}, "sticky_by", "9 is not known"),
        ({"prompt_templates": [{}]}, "prompt_templates[0].version", "needs a version"),
        (
            {"prompt_templates": [{"version": "a"}, {"version": "a"}]},
            "prompt_templates[1].version",
            "'a' is there twice",
        ),
        ({"variants": [{"name": ""}]}, "variants[0].name", "name of its own"),
        ({"variants": [{}, {}]}, "variants[1].name", "'base' is there twice"),
        ({"variants": [{"name": "n" * 201}]}, "variants[0].name", "at most 200"),
        ({"variants": [{"name": "a~b"}]}, "variants[0].name", "must not hold ~"),
        ({"variants": [{"base_model": ""}]}, "variants[0].base_model", "needs a base_model"),
        (
            {"variants": [{"base_model": "", "adapter": "a-3"}]},
            "variants[0].base_model",
            "the one that adapter 'a-3' was made for",
        ),
        ({"variants": [{"stage": 0}]}, "variants[0].stage", "STAGE_CHAMPION"),
        ({"variants": [{}, shadow("s", 101)]}, "variants[1].weight", "percentage"),
        (
            {"variants": [{"prompt_template_version": "v9"}]},
            "variants[0].prompt_template_version",
            "'v9' is not in prompt_templates",
        ),
        ({"variants": [candidate("new", 5)]}, "variants", "exactly one .* there are 0"),
        ({"variants": [{}, {"name": "b"}]}, "variants", "exactly one .* there are 2"),
        ({"variants": [{"weight": 0}]}, "variants", "weight above 0"),
        ({"variants": [{"weight": 0}, shadow("s", 5)]}, "variants", "weight above 0"),
    ],
)
def test_a_route_that_could_not_serve_is_refused_by_its_field(
    changes: dict[str, Any], field: str, message: str
) -> None:
    variants = changes.pop("variants", [{}])
    broken = route(*variants, **changes) if variants else route(**changes)
    if not variants:
        broken.ClearField("variants")
    with pytest.raises(InvalidRequest, match=message) as caught:
        check_route(broken)
    assert caught.value.field == field


def test_a_route_that_uses_everything_is_fine() -> None:
    check_route(
        route(
            {"prompt_template_version": "v1"},
            {**candidate("new", 5), "adapter": "triage-lora-7"},
            {**candidate("later", 0)},
            shadow("s", 100),
            prompt_templates=[{"version": "v1", "system": ""}],
            sticky_by="STICKY_BY_TENANT",
        )
    )


def test_a_route_that_is_not_newer_is_refused_and_counted() -> None:
    table = RouteTable()
    assert table.apply(route(version=3))
    for version in (2, 3):
        assert not table.apply(route({"name": "other"}, version=version))
    assert table.refused == 2
    assert "base" in table.find("triage").variants
    assert table.apply(route({"name": "other"}, version=4))
    assert "other" in table.find("").variants
    assert [r.version for r in table.models()] == [4]
    table.remove("triage")
    table.remove("triage")
    assert not table.models()
    assert table.get("triage") is None


def test_a_route_that_could_not_serve_leaves_the_last_one_in_place() -> None:
    table = RouteTable()
    table.apply(route(version=1))
    with pytest.raises(InvalidRequest):
        table.apply(route({"weight": 0}, version=2))
    assert table.find("triage").version == 1
    assert table.refused == 0


def test_an_unknown_model_lists_those_there_are() -> None:
    table = RouteTable()
    with pytest.raises(Unavailable, match="penstock routes apply"):
        table.find("triage")
    for number in range(25):
        table.apply(route(model=f"m{number:02}"))
    with pytest.raises(InvalidRequest, match=r"m00, .*, m19 and 5 more") as caught:
        table.find("triage")
    assert caught.value.code == Code.ERROR_CODE_UNKNOWN_MODEL
    with pytest.raises(InvalidRequest, match="name a model"):
        table.find("")


@given(st.integers(1, 6).flatmap(lambda n: st.permutations(range(1, n + 1))))
def test_the_highest_version_stands_whatever_the_order(versions: list[int]) -> None:
    table = RouteTable()
    for version in versions:
        table.apply(route(version=version))
    assert table.find("triage").version == max(versions)
