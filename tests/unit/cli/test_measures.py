"""What a command says of a measure, and of names that are none."""

from __future__ import annotations

import datetime as dt

import pytest

from penstock.cli.measures import base_model
from penstock.cli.run import CliError
from penstock.measures import Kind, Measure, in_words
from penstock.v1 import route_pb2

NOW = dt.datetime(2026, 11, 21, 12, tzinfo=dt.UTC)
ROUTES = [
    route_pb2.Route(
        model="support",
        variants=[
            route_pb2.Variant(name="a", base_model="triage"),
            route_pb2.Variant(name="b", base_model="big"),
        ],
    ),
    route_pb2.Route(model="triage", variants=[route_pb2.Variant(name="a", base_model="triage")]),
]


@pytest.mark.parametrize(
    ("kind", "more", "words"),
    [
        (Kind.SCALE, {"replicas": 3}, "triage has at least 3 engine replicas"),
        (Kind.SHED, {}, "requests for triage are refused"),
        (
            Kind.SHED,
            {"share": 0.25, "priority_above": 0},
            "25% of the requests for triage with a priority value above 0 are refused",
        ),
        (Kind.RESTART, {}, "the slowest replica of triage starts anew"),
        (Kind.RESTART, {"replica": "x1"}, "replica x1 of triage starts anew"),
    ],
)
def test_a_measure_in_words(kind: Kind, more: dict[str, object], words: str) -> None:
    made = Measure("m", kind, "triage", NOW, NOW, **more)  # type: ignore[arg-type]
    assert in_words(made) == words


def test_engines_are_named_by_their_base_model() -> None:
    assert base_model(ROUTES, "triage") == "triage"
    with pytest.raises(CliError, match="support is a route; its engines' models are: big, triage"):
        base_model(ROUTES, "support")
    with pytest.raises(CliError, match="no route has a variant on 'x'; there are: big, triage"):
        base_model(ROUTES, "x")
