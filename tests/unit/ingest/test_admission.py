"""What is admitted and what is refused, with the field and the remedy."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from google.protobuf import json_format

from penstock.errors import Code, InvalidRequest, Unavailable
from penstock.identity import id_of_key, seed_of
from penstock.routing import RouteTable
from penstock.v1 import admitted_pb2, common_pb2, engine_service_pb2, request_pb2, route_pb2
from penstock_ingest.admission.pipeline import Admission, Arrival
from penstock_ingest.admission.validation import MAX_SCHEMA_DEPTH
from penstock_ingest.errors import DeadlinePassed

NOW = dt.datetime(2026, 5, 1, 12, tzinfo=dt.UTC)
HELLO: dict[str, Any] = {"prompt": "hello"}
STAGES = {"new": route_pb2.STAGE_CANDIDATE, "sha": route_pb2.STAGE_SHADOW}


def route(model: str = "triage", version: int = 1, **weights: int) -> route_pb2.Route:
    made = route_pb2.Route(model=model, version=version)
    for name, weight in (weights or {"base": 100}).items():
        stage = STAGES.get(name[:3], route_pb2.STAGE_CHAMPION)
        made.variants.add(name=name, base_model="m", weight=weight, stage=stage)
    return made


def admission(*routes: route_pb2.Route, **settings: Any) -> Admission:
    table = RouteTable()
    for one in routes or (route(),):
        table.apply(one)
    return Admission(table, **settings)


def arrival(**changes: Any) -> Arrival:
    return Arrival(**{"fallback_id": "req-1", "published_at": NOW, "now": NOW, **changes})


def request(**fields: Any) -> request_pb2.GenerateRequest:
    return json_format.ParseDict(fields, request_pb2.GenerateRequest())


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "prompt"),
        ({"prompt": "  \n"}, "prompt"),
        ({"prompt": "a", "messages": [{"role": "user", "content": "b"}]}, "prompt"),
        ({"messages": [{"role": "user", "content": "a"}, {"role": "bot"}]}, "messages[1].role"),
        ({"messages": [{"role": "user", "content": " "}]}, "messages[0].content"),
        ({**HELLO, "sampling": {"temperature": 2.5}}, "sampling.temperature"),
        ({**HELLO, "sampling": {"temperature": "NaN"}}, "sampling.temperature"),
        ({**HELLO, "sampling": {"temperature": -0.1}}, "sampling.temperature"),
        ({**HELLO, "sampling": {"top_p": 0}}, "sampling.top_p"),
        ({**HELLO, "sampling": {"top_p": "NaN"}}, "sampling.top_p"),
        ({**HELLO, "sampling": {"top_k": 0}}, "sampling.top_k"),
        ({**HELLO, "sampling": {"max_tokens": 0}}, "sampling.max_tokens"),
        ({**HELLO, "sampling": {"max_tokens": -5}}, "sampling.max_tokens"),
        ({**HELLO, "sampling": {"stop": list("abcdefghi")}}, "sampling.stop"),
        ({**HELLO, "sampling": {"stop": ["a", ""]}}, "sampling.stop[1]"),
        ({**HELLO, "sampling": {"presence_penalty": 3}}, "sampling.presence_penalty"),
        ({**HELLO, "sampling": {"frequency_penalty": "-Infinity"}}, "sampling.frequency_penalty"),
        ({**HELLO, "timeout": "-1s"}, "timeout"),
        ({**HELLO, "timeout": "0s"}, "timeout"),
        ({**HELLO, "timeout": "86401s"}, "timeout"),
        ({**HELLO, "deadline": "2026-05-01T11:59:59Z"}, "deadline"),
        ({**HELLO, "deadline": "2026-05-03T12:00:00Z"}, "deadline"),
        ({**HELLO, "deadline": "2026-05-01T12:01:00Z", "timeout": "5s"}, "timeout"),
        ({**HELLO, "priority": 101}, "priority"),
        ({**HELLO, "ordering_key": "k" * 513}, "ordering_key"),
        ({**HELLO, "idempotency_key": "k" * 513}, "idempotency_key"),
        ({**HELLO, "tenant": "no spaces"}, "tenant"),
        ({**HELLO, "labels": {str(n): "x" for n in range(17)}}, "labels"),
        ({**HELLO, "labels": {"k": "v" * 300}}, "labels"),
        ({**HELLO, "labels": {"": "v"}}, "labels"),
        ({**HELLO, "contexts": [{"text": "a"}, {"text": " "}]}, "contexts[1].text"),
        ({**HELLO, "model": "other"}, "model"),
    ],
)
def test_a_fault_is_refused_by_its_field(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        admission().admit(request(**fields), arrival())
    assert caught.value.field == field
    assert caught.value.message
    assert not caught.value.retryable


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(levels - 1):
        schema = {"a": schema}
    return schema


def test_the_deepest_schema_travels_as_far_as_an_engine() -> None:
    asked = request(**HELLO)
    asked.response_schema.update(nested(MAX_SCHEMA_DEPTH))
    admitted = admission().admit(asked, arrival())
    message = engine_service_pb2.WorkRequest(start=[{"request": admitted}])
    assert engine_service_pb2.WorkRequest.FromString(message.SerializeToString()) == message


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        (nested(MAX_SCHEMA_DEPTH + 1), "24 levels"),
        ({"allOf": [[nested(MAX_SCHEMA_DEPTH)]]}, "24 levels"),
        ({"maximum": float("inf")}, "not finite"),
        ({"items": [{"enum": [1, float("nan")]}]}, "not finite"),
        ({"description": "x" * 70_000}, "larger than 65536 bytes"),
    ],
)
def test_a_schema_that_is_too_deep_too_large_or_no_json_is_refused(
    schema: dict[str, Any], says: str
) -> None:
    asked = request(**HELLO)
    asked.response_schema.update(schema)
    with pytest.raises(InvalidRequest, match=says) as caught:
        admission().admit(asked, arrival())
    assert caught.value.field == "response_schema"


@pytest.mark.parametrize("field", ["prompt", "messages"])
def test_an_over_long_request_is_too_large(field: str) -> None:
    text = "x" * 2000
    body = (
        {"prompt": text} if field == "prompt" else {"messages": [{"role": "user", "content": text}]}
    )
    with pytest.raises(InvalidRequest) as caught:
        admission(max_request_bytes=1024).admit(request(**body), arrival())
    assert (caught.value.code, caught.value.field) == (Code.ERROR_CODE_TOO_LARGE, field)


def test_an_unknown_model_lists_those_there_are() -> None:
    desk = admission(route("b"), route("a"))
    with pytest.raises(InvalidRequest, match="there are: a, b") as caught:
        desk.admit(request(**HELLO, model="c"), arrival())
    assert caught.value.code == Code.ERROR_CODE_UNKNOWN_MODEL


def test_without_a_model_the_only_one_answers_and_several_are_a_question() -> None:
    assert admission().admit(request(**HELLO), arrival()).request.model == "triage"
    with pytest.raises(InvalidRequest, match="a, b") as caught:
        admission(route("b"), route("a")).admit(request(**HELLO), arrival())
    assert caught.value.field == "model"


def test_no_route_is_worth_a_retry() -> None:
    with pytest.raises(Unavailable):
        Admission(RouteTable()).admit(request(**HELLO), arrival())


def test_every_default_is_filled_in_and_nothing_that_was_said_is_changed() -> None:
    with_defaults = route()
    with_defaults.variants[0].defaults.temperature = 0.7
    with_defaults.variants[0].defaults.max_tokens = 32
    with_defaults.variants[0].defaults.stop.append("END")
    sent = request(**HELLO, sampling={"temperature": 0, "seed": 5})
    before = request_pb2.GenerateRequest.FromString(sent.SerializeToString())
    admitted = admission(with_defaults).admit(sent, arrival())
    sampling = admitted.request.sampling
    assert (sampling.temperature, sampling.max_tokens, sampling.seed) == (0, 32, 5)
    assert list(sampling.stop) == ["END"]
    assert admitted.request.tenant == "default"
    assert admitted.deadline.ToDatetime(dt.UTC) == NOW + dt.timedelta(seconds=600)
    assert admitted.request.deadline == admitted.deadline
    assert (admitted.variant, admitted.route_version) == ("base", 1)
    assert not admitted.HasField("reply_partition")
    assert not admitted.HasField("source")
    assert sent == before


def test_nobody_bounds_the_answer() -> None:
    sampling = admission().admit(request(**HELLO), arrival()).request.sampling
    assert sampling.max_tokens == 256
    assert sampling.seed == seed_of("req-1")


def test_a_key_names_the_request_within_its_tenant() -> None:
    def admit(**fields: str) -> str:
        return admission().admit(request(**HELLO, **fields), arrival()).request_id

    assert admit() == "req-1"
    assert admit(idempotency_key="k") == admit(idempotency_key="k", tenant="default")
    assert admit(idempotency_key="k", tenant="a") == id_of_key("a", "k")
    assert len({admit(idempotency_key="k", tenant=t) for t in ("a", "b", "c")}) == 3
    assert id_of_key("a", "bc") != id_of_key("ab", "c")


def test_the_seed_follows_from_the_name() -> None:
    keyed = request(**HELLO, idempotency_key="k")
    first, second = (admission().admit(keyed, arrival(fallback_id=f)) for f in ("req-1", "req-2"))
    assert first.request.sampling.seed == second.request.sampling.seed
    assert 0 <= first.request.sampling.seed < 2**63


@pytest.mark.parametrize(
    ("fields", "changes", "after_s"),
    [
        ({"timeout": "30s"}, {}, 30),
        ({"timeout": "30s"}, {"published_at": NOW - dt.timedelta(seconds=20)}, 10),
        ({"deadline": "2026-05-01T12:00:45Z"}, {}, 45),
        ({"timeout": "30s"}, {"deadline_cap": NOW + dt.timedelta(seconds=5)}, 5),
        ({}, {"deadline_cap": NOW + dt.timedelta(days=30)}, 600),
    ],
)
def test_the_deadline_counts_from_publication_and_the_call_bounds_it(
    fields: dict[str, Any], changes: dict[str, Any], after_s: float
) -> None:
    admitted = admission().admit(request(**HELLO, **fields), arrival(**changes))
    assert admitted.deadline.ToDatetime(dt.UTC) == NOW + dt.timedelta(seconds=after_s)


@pytest.mark.parametrize("fields", [{"timeout": "30s"}, {"deadline": "2026-05-01T11:59:50Z"}, {}])
def test_a_request_that_waited_too_long_has_expired_and_is_not_at_fault(
    fields: dict[str, Any],
) -> None:
    with pytest.raises(DeadlinePassed):
        admission().admit(
            request(**HELLO, **fields), arrival(published_at=NOW - dt.timedelta(seconds=700))
        )


def test_an_ordering_key_keeps_its_variant_and_a_shadow_never_answers() -> None:
    desk = admission(route(base=50, new=50, shadow=100))
    keyed = [
        desk.admit(request(**HELLO, ordering_key="k"), arrival(fallback_id=f"req-{n}")).variant
        for n in range(50)
    ]
    free = [
        desk.admit(request(**HELLO), arrival(fallback_id=f"req-{n}")).variant for n in range(50)
    ]
    assert len(set(keyed)) == 1
    assert set(free) == {"base", "new"}


def test_what_sticks_follows_the_route() -> None:
    split = route(base=50, new=50)
    split.sticky_by = route_pb2.STICKY_BY_TENANT
    desk = admission(split)
    chosen = {
        tenant: {
            desk.admit(request(**HELLO, tenant=tenant), arrival(fallback_id=f"req-{n}")).variant
            for n in range(20)
        }
        for tenant in (f"tenant-{n}" for n in range(20))
    }
    assert {len(variants) for variants in chosen.values()} == {1}
    assert set.union(*chosen.values()) == {"base", "new"}


def copies(
    split: route_pb2.Route, **fields: Any
) -> tuple[admitted_pb2.AdmittedRequest, list[admitted_pb2.AdmittedRequest]]:
    desk, sent = admission(split), request(**{**HELLO, **fields})
    admitted = desk.admit(sent, arrival(reply_partition=3, stream=True))
    return admitted, desk.shadows(sent, admitted)


def test_a_copy_is_the_request_for_the_shadow_alone() -> None:
    admitted, (copy,) = copies(
        route(base=100, shadow=100),
        ordering_key="talk",
        idempotency_key="once",
        tenant="acme",
        labels={"team": "a"},
        priority=-5,
    )
    assert copy.request_id == f"{admitted.request_id}~shadow"
    assert copy.origin_request_id == admitted.request_id
    assert (copy.purpose, copy.variant) == (common_pb2.PURPOSE_SHADOW, "shadow")
    assert (copy.route_version, copy.deadline) == (admitted.route_version, admitted.deadline)
    assert copy.encoding == admitted_pb2.ENCODING_PROTOBUF
    # Nobody waits for it, it holds nobody back, and it runs last.
    assert not copy.HasField("reply_partition")
    assert not copy.stream
    assert (copy.request.ordering_key, copy.request.idempotency_key) == ("", "")
    assert copy.request.priority == 100
    for field in ("prompt", "tenant", "labels", "model", "deadline"):
        assert getattr(copy.request, field) == getattr(admitted.request, field)
    assert (admitted.purpose, admitted.stream, admitted.reply_partition) == (0, True, 3)
    assert (admitted.request.priority, admitted.request.ordering_key) == (-5, "talk")


def test_a_copy_is_drawn_by_the_shadows_defaults_with_the_same_seed() -> None:
    split = route(base=100, shadow=100)
    split.variants[0].defaults.temperature = 0.2
    split.variants[0].defaults.max_tokens = 10
    split.variants[1].defaults.temperature = 0.9
    admitted, (copy,) = copies(split, sampling={"top_p": 0.5})
    assert (admitted.request.sampling.temperature, admitted.request.sampling.max_tokens) == (
        0.2,
        10,
    )
    assert (copy.request.sampling.temperature, copy.request.sampling.max_tokens) == (0.9, 256)
    for sampling in (admitted.request.sampling, copy.request.sampling):
        assert (sampling.top_p, sampling.seed) == (0.5, seed_of("req-1"))


def test_every_shadow_gets_its_own_copy_and_mostly_there_is_none() -> None:
    assert [c.variant for c in copies(route(base=1, shadow=100, sha2=100))[1]] == ["shadow", "sha2"]
    assert copies(route(base=1, new=1))[1] == []
    assert copies(route(base=1, shadow=0))[1] == []


def test_a_route_that_is_gone_by_now_has_no_shadows() -> None:
    table = RouteTable()
    table.apply(route(base=1, shadow=100))
    desk, sent = Admission(table), request(**HELLO)
    admitted = desk.admit(sent, arrival())
    table.remove("triage")
    assert desk.shadows(sent, admitted) == []
