"""Which routes are written, and which are refused."""

import json
from pathlib import Path

import pytest

from penstock.cli import routes_plan
from penstock.cli.run import CliError
from penstock.codec import encode
from penstock.records import Partition, Record
from penstock.v1 import route_pb2

ROOT = Path(__file__).parents[3]


def route(version=1, weight=100, model="triage"):
    variant = route_pb2.Variant(
        name="v", base_model="b", weight=weight, stage=route_pb2.STAGE_CHAMPION
    )
    return route_pb2.Route(model=model, version=version, variants=[variant])


def on_log(*routes):
    records = []
    for offset, each in enumerate(routes):
        out = encode(each, topic="p.routes", key=each.model, source="t")
        records.append(Record(Partition("p.routes", 0), offset, out.key, out.value, out.headers, 0))
    return records


def file(**changed):
    variant = {"name": "v", "base_model": "b", "weight": 1, "stage": "STAGE_CHAMPION"}
    variant.update(changed.pop("variant", {}))
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
        (file(model=""), "entry 0: model: model is missing"),
        (file(version="0"), "m: version: .* at least 1"),
        (file(variants=[]), "m: variants: there must be at least one"),
        (file(variant={"name": ""}), r"m: variants\[0\].name: .* a name of its own"),
        (file(variant={"base_model": ""}), "needs a base_model"),
        (file(variant={"weight": 0}), "weight above 0"),
        (file(variant={"stage": "STAGE_SHADOW"}), "exactly one variant must be STAGE_CHAMPION"),
        (file(variant={"stage": None}), "needs a stage"),
        (file(variant={"prompt_template_version": "v1"}), "'v1' is not in prompt_templates"),
        (json.dumps(json.loads(file()) * 2), "two routes"),
    ],
)
def test_a_file_that_could_not_serve_is_refused(text, message):
    with pytest.raises(CliError, match=message):
        routes_plan.parse(text)


@pytest.mark.parametrize("file", ["compose/routes.json", "k8s/penstock/files/routes.json"])
def test_the_routes_that_a_stack_starts_with_could_serve(file):
    assert routes_plan.parse((ROOT / file).read_text())


def test_the_guides_example_could_serve():
    text = (ROOT / "docs/routes.md").read_text()
    example = text.split("```json\n")[1].split("```")[0]
    assert routes_plan.parse(f"[{example}]")


def test_a_good_file_is_read():
    assert routes_plan.parse(file())[0].variants[0].base_model == "b"


def split(version=3, base=80, new=20, shadow=10):
    made = route_pb2.Route(model="triage", version=version)
    for name, weight, stage in (
        ("base", base, route_pb2.STAGE_CHAMPION),
        ("new", new, route_pb2.STAGE_CANDIDATE),
        ("copy", shadow, route_pb2.STAGE_SHADOW),
    ):
        made.variants.add(name=name, base_model="b", weight=weight, stage=stage)
    return made


def weights(route):
    return {variant.name: variant.weight for variant in route.variants}


def test_weights_move_in_the_next_version_and_the_rest_stays():
    standing = split()
    new = routes_plan.reweighted(standing, {"base": 95, "new": 5})
    assert (new.version, weights(new)) == (4, {"base": 95, "new": 5, "copy": 10})
    assert weights(standing) == {"base": 80, "new": 20, "copy": 10}


def test_what_a_route_says_already_is_no_new_version():
    standing = split()
    assert routes_plan.reweighted(standing, {"new": 20}) is standing
    back = routes_plan.rolled_back(standing)
    assert routes_plan.rolled_back(back) is back


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"newer": 5}, "no variant newer; there are: base, new, copy"),
        ({"base": 0, "new": 0}, "triage: variants: .* weight above 0"),
        ({"copy": 101}, r"triage: variants\[2\].weight: .* at most 100"),
    ],
)
def test_weights_that_could_not_serve_are_refused(change, message):
    with pytest.raises(CliError, match=message):
        routes_plan.reweighted(split(), change)


@pytest.mark.parametrize(("base", "after"), [(80, 80), (0, 100)])
def test_a_rollback_leaves_all_traffic_to_the_champion(base, after):
    back = routes_plan.rolled_back(split(base=base))
    assert (back.version, weights(back)) == (4, {"base": after, "new": 0, "copy": 10})
    assert [variant.stage for variant in back.variants] == [1, 2, 3]


def test_an_earlier_version_comes_back_under_the_next_number():
    on = on_log(split(1, new=0), split(2), split(3, base=0, new=100), route(9, model="other"))
    versions = routes_plan.history(on, "triage")
    assert [entry.route.version for entry in versions] == [1, 2, 3]
    assert {entry.writer for entry in versions} == {"t"}
    back = routes_plan.restored(versions[-1].route, versions, 1)
    assert (back.version, weights(back)) == (4, {"base": 80, "new": 0, "copy": 10})
    assert versions[0].route.version == 1


@pytest.mark.parametrize(
    ("to", "message"),
    [(3, "version 3 is the newest"), (7, "name an earlier one"), (1, "not on the log.* are: 2, 3")],
)
def test_a_version_that_cannot_come_back_is_refused(to, message):
    versions = routes_plan.history(on_log(split(2), split(3)), "triage")
    with pytest.raises(CliError, match=message):
        routes_plan.restored(versions[-1].route, versions, to)


def test_history_passes_over_tombstones_and_what_is_no_route():
    records = on_log(split(1), split(2))
    records.insert(1, Record(Partition("p.routes", 0), 5, b"triage", b"\xff\xff", (), 0))
    records.append(Record(Partition("p.routes", 0), 6, b"triage", None, (), 0))
    assert [entry.route.version for entry in routes_plan.history(records, "triage")] == [1, 2]


def test_two_who_write_the_same_version_are_told():
    mine, theirs = split(4, new=5), split(4, new=50)
    routes_plan.check_alone(mine, on_log(split(3), mine, mine, split(5)))
    with pytest.raises(CliError, match="t wrote version 4 at the same time"):
        routes_plan.check_alone(mine, on_log(mine, theirs))


def test_weights_are_read():
    assert routes_plan.parse_weights(["a=1", "b=c=0"]) == {"a": 1, "b=c": 0}


@pytest.mark.parametrize(
    "text", ["a", "a=", "=5", "a=x", "a=-1", "a=1.5", "a=\u0661", "a=4294967296"]
)
def test_what_is_no_weight_is_refused(text):
    with pytest.raises(CliError, match="VARIANT=WEIGHT"):
        routes_plan.parse_weights([text])
    with pytest.raises(CliError, match="a is there twice"):
        routes_plan.parse_weights(["a=1", "a=2"])


def test_shares_are_for_people():
    made = split(base=2, new=1)
    assert [routes_plan.share(made, v) for v in made.variants] == [
        "66.67 %",
        "33.33 %",
        "copies of 10 %",
    ]
