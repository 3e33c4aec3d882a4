"""Which routes are written, and which are refused."""

import json

import pytest

from penstock.cli import routes_plan
from penstock.cli.run import CliError
from penstock.codec import encode
from penstock.records import Partition, Record
from penstock.v1 import route_pb2


def route(version=1, weight=100, model="triage"):
    variant = route_pb2.Variant(name="v", base_model="b", weight=weight)
    return route_pb2.Route(model=model, version=version, variants=[variant])


def on_log(*routes):
    records = []
    for offset, each in enumerate(routes):
        out = encode(each, topic="p.routes", key=each.model, source="t")
        records.append(Record(Partition("p.routes", 0), offset, out.key, out.value, out.headers, 0))
    return records


def file(**changed):
    variant = {"name": "v", "base_model": "b", "weight": 1, **changed.pop("variant", {})}
    return json.dumps([{"model": "m", "version": "1", "variants": [variant], **changed}])


def test_newest_keeps_the_highest_version_whatever_the_order():
    assert routes_plan.newest(on_log(route(1), route(3), route(2)))["triage"].version == 3


def test_newest_forgets_a_model_at_its_tombstone():
    records = on_log(route(1), route(1, model="other"))
    records.append(Record(Partition("p.routes", 0), 2, b"triage", None, (), 0))
    assert list(routes_plan.newest(records)) == ["other"]


def test_newest_passes_over_what_is_no_route():
    broken = Record(Partition("p.routes", 0), 1, b"triage", b"\xff\xff", (), 0)
    assert routes_plan.newest([*on_log(route(1)), broken])["triage"].version == 1


def test_a_new_model_and_a_higher_version_are_written():
    wanted = [route(2), route(1, model="new")]
    assert routes_plan.changes(wanted, {"triage": route(1)}) == wanted


def test_the_same_again_is_nothing_to_do():
    assert routes_plan.changes([route(1)], {"triage": route(1)}) == []


def test_a_lower_version_is_refused_unless_newer_ones_are_kept():
    with pytest.raises(CliError, match="version 2 is there and the file has 1"):
        routes_plan.changes([route(1)], {"triage": route(2)})
    assert routes_plan.changes([route(1)], {"triage": route(2)}, keep_newer=True) == []


@pytest.mark.parametrize("keep_newer", [False, True])
def test_the_same_version_with_other_content_is_refused(keep_newer):
    with pytest.raises(CliError, match="other content; raise it to 2"):
        routes_plan.changes([route(1, weight=5)], {"triage": route(1)}, keep_newer=keep_newer)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "at least one"),
        ("{}", "must be a JSON list"),
        ('[{"modle": "m"}]', "entry 0 is not a Route"),
        (file(model=""), "model is missing"),
        (file(version="0"), "at least 1"),
        (file(variants=[]), "there must be one"),
        (file(variant={"name": ""}), "a name of its own"),
        (file(variant={"base_model": ""}), "needs a base_model"),
        (file(variant={"weight": 0}), "weight above 0"),
        (file(variant={"stage": "STAGE_SHADOW"}), "weight above 0"),
        (json.dumps(json.loads(file()) * 2), "two routes"),
    ],
)
def test_a_file_that_could_not_serve_is_refused(text, message):
    with pytest.raises(CliError, match=message):
        routes_plan.parse(text)


def test_a_good_file_is_read():
    assert routes_plan.parse(file())[0].variants[0].base_model == "b"
