"""Which adapters the routes want on a base model's engines."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.v1 import route_pb2
from penstock_inference.adapters.wanted import finder_of, wanted
from penstock_inference.engines.errors import AdapterUnusable
from penstock_inference.engines.models import ScriptedModel, VllmModel


def variant(name: str, base_model: str, adapter: str, weight: int) -> route_pb2.Variant:
    return route_pb2.Variant(name=name, base_model=base_model, adapter=adapter, weight=weight)


def test_those_of_all_variants_of_all_routes_on_the_model() -> None:
    routes = [
        route_pb2.Route(
            model="a",
            variants=[
                variant("base", "triage", "", 90),
                variant("v1", "triage", "triage-v1", 10),
                variant("next", "triage", "triage-v2", 0),  # loaded before it takes traffic
                variant("other", "hosted", "large-v1", 10),
            ],
        ),
        route_pb2.Route(model="b", variants=[variant("v3", "triage", "triage-v3", 100)]),
    ]
    assert wanted(routes, "triage") == {"triage-v1", "triage-v2", "triage-v3"}
    assert wanted(routes, "hosted") == {"large-v1"}
    assert wanted([], "triage") == set()


def test_where_adapters_are_found(tmp_path: Path) -> None:
    assert finder_of(ScriptedModel(name="s"))("v1").name == "v1"
    with pytest.raises(AdapterUnusable, match="no adapters_dir is set"):
        finder_of(VllmModel(name="m", path="m"))("v1")
    with pytest.raises(AdapterUnusable, match="there is no directory"):
        finder_of(VllmModel(name="m", path="m", adapters_dir=str(tmp_path)))("v1")
