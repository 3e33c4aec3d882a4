"""What a job's changes make of a route: shares, promotion, and the way back."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.routing import choose_variant, prepare
from penstock.v1 import route_pb2
from penstock_retrain.jobs.route_plan import changed, percent_of, rebased, shadow_of, taken_away
from penstock_retrain.jobs.stages import Candidate, RouteChange, RouteChangeKind, StageBroken

NEW = Candidate("triage-v1", "triage", "triage-v1")
K = RouteChangeKind


def variant(name: str, weight: int, stage: str, **fields: Any) -> route_pb2.Variant:
    return route_pb2.Variant(
        name=name,
        base_model="triage",
        weight=weight,
        stage=route_pb2.Stage.Value(f"STAGE_{stage}"),
        **fields,
    )


def route(*variants: route_pb2.Variant, version: int = 1) -> route_pb2.Route:
    return route_pb2.Route(model="triage", version=version, variants=variants)


BASE = route(variant("triage-base", 100, "CHAMPION", prompt_template_version=""))


def change(kind: RouteChangeKind, percent: float = 0.0) -> RouteChange:
    return RouteChange(kind, NEW, percent)


def made(
    standing: route_pb2.Route, *changes: RouteChange, before: route_pb2.Route | None = None
) -> route_pb2.Route:
    for each in changes:
        new = changed(standing, each, before)
        assert new is not None
        standing = new
    return standing


def shares(found: route_pb2.Route) -> dict[str, tuple[str, int]]:
    return {
        v.name: (route_pb2.Stage.Name(v.stage).removeprefix("STAGE_"), v.weight)
        for v in found.variants
    }


def test_from_shadow_to_promotion() -> None:
    shadow = made(BASE, change(K.SHADOW, 25))
    assert shares(shadow) == {"triage-base": ("CHAMPION", 100), "triage-v1": ("SHADOW", 25)}
    assert (shadow_of(shadow, NEW), percent_of(shadow, NEW.name)) == (25, 0)
    split = made(shadow, change(K.SPLIT, 5))
    assert shares(split) == {"triage-base": ("CHAMPION", 9500), "triage-v1": ("CANDIDATE", 500)}
    assert (shadow_of(split, NEW), percent_of(split, NEW.name)) == (0, 5)
    half = made(split, change(K.SPLIT, 50))
    assert percent_of(half, NEW.name) == 50
    promoted = made(half, change(K.PROMOTE))
    assert shares(promoted) == {
        "triage-base": ("CANDIDATE", 0),
        "triage-v1": ("CHAMPION", 10_000),
    }
    assert promoted.version == 5
    back = made(promoted, change(K.RESTORE), before=half)
    assert shares(back) == {"triage-base": ("CHAMPION", 10_000)}
    assert back.version == 6


def test_a_withdrawal_leaves_the_champion_alone() -> None:
    split = made(BASE, change(K.SPLIT, 100))
    assert shares(split)["triage-base"] == ("CHAMPION", 0)
    withdrawn = made(split, change(K.WITHDRAW))
    assert shares(withdrawn) == {"triage-base": ("CHAMPION", 10_000)}
    assert changed(withdrawn, change(K.WITHDRAW)) is None
    # What was promoted is no candidate: a late withdrawal takes nothing from it.
    assert changed(made(BASE, change(K.PROMOTE)), change(K.WITHDRAW)) is None


def test_a_restoration_brings_back_who_is_not_on_the_route_any_more() -> None:
    before = made(BASE, change(K.SPLIT, 50))
    promoted = made(before, change(K.PROMOTE))
    del promoted.variants[0]
    back = made(promoted, change(K.RESTORE), before=before)
    assert shares(back) == {"triage-base": ("CHAMPION", 10_000)}
    # Somebody else's champion stays.
    other = route(variant("other", 1, "CHAMPION"), version=9)
    assert changed(other, change(K.RESTORE), before) is None
    # But whoever is rolled back keeps no share beside it.
    shared = route(variant("other", 50, "CHAMPION"), variant("triage-v1", 50, "CANDIDATE"))
    assert shares(made(shared, change(K.RESTORE), before=before)) == {"other": ("CHAMPION", 50)}


def test_others_keep_their_ratio() -> None:
    standing = route(variant("a", 3, "CHAMPION"), variant("b", 1, "CANDIDATE"))
    split = made(standing, change(K.SPLIT, 20))
    assert shares(split) == {
        "a": ("CHAMPION", 6000),
        "b": ("CANDIDATE", 2000),
        "triage-v1": ("CANDIDATE", 2000),
    }


def test_who_has_all_gives_back_what_it_is_not_to_have() -> None:
    standing = route(variant("a", 0, "CHAMPION"), variant("triage-v1", 7, "CANDIDATE"))
    split = made(standing, change(K.SPLIT, 20))
    assert shares(split) == {"a": ("CHAMPION", 8000), "triage-v1": ("CANDIDATE", 2000)}
    whole = made(BASE, change(K.SPLIT, 100))
    assert percent_of(whole, "triage-v1") == 100


def test_the_smallest_share_is_no_withdrawal() -> None:
    split = made(BASE, change(K.SPLIT, 0.001))
    assert not taken_away(split, NEW, was_there=True)
    assert percent_of(split, "triage-v1") == 0.01


@given(first=st.integers(1, 99), more=st.integers(1, 99))
def test_units_move_to_the_candidate_only(first: int, more: int) -> None:
    low, high = sorted((first, more))
    one, two = made(BASE, change(K.SPLIT, low)), made(BASE, change(K.SPLIT, high))
    for n in range(200):
        before = choose_variant(prepare(one), f"request\0{n}").name
        after = choose_variant(prepare(two), f"request\0{n}").name
        assert after in (before, NEW.name)


@pytest.mark.parametrize("percent", [0, -1, 101])
def test_no_share_is_refused(percent: float) -> None:
    with pytest.raises(StageBroken, match="more than 0 and at most 100"):
        changed(BASE, change(K.SPLIT, percent))


def test_a_candidate_that_is_the_champion_gets_no_share() -> None:
    promoted = made(BASE, change(K.PROMOTE))
    assert changed(promoted, change(K.PROMOTE)) is None
    with pytest.raises(StageBroken, match="is the champion"):
        changed(promoted, change(K.SPLIT, 5))


def test_who_withdrew_a_candidate_is_seen() -> None:
    split = made(BASE, change(K.SPLIT, 5))
    assert not taken_away(split, NEW, was_there=True)
    by_hand = route_pb2.Route()
    by_hand.CopyFrom(split)
    by_hand.variants[1].weight = 0
    assert taken_away(by_hand, NEW, was_there=True)
    assert taken_away(BASE, NEW, was_there=True)
    assert not taken_away(BASE, NEW, was_there=False)


def test_a_change_is_made_anew_of_somebody_elses_route_unless_that_changed_the_candidate() -> None:
    base = made(BASE, change(K.SPLIT, 5))
    elsewhere = route_pb2.Route()
    elsewhere.CopyFrom(base)
    elsewhere.version += 3
    elsewhere.sticky_by = route_pb2.STICKY_BY_TENANT
    again = rebased(elsewhere, change(K.SPLIT, 20), base)
    assert again is not None
    assert (again.version, percent_of(again, NEW.name)) == (6, 20)
    assert again.sticky_by == route_pb2.STICKY_BY_TENANT
    elsewhere.variants[1].weight = 0
    assert rebased(elsewhere, change(K.SPLIT, 20), base) is None
    assert rebased(elsewhere, change(K.PROMOTE), base) is None
    withdrawn = rebased(elsewhere, change(K.WITHDRAW), base)
    assert withdrawn is not None
    assert set(shares(withdrawn)) == {"triage-base"}
