"""The exact cache: who shares an answer, what is kept, and for how long."""

from __future__ import annotations

import json
import timeit
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

from penstock.identity import seed_of
from penstock.v1 import admitted_pb2, common_pb2, engine_service_pb2, response_pb2, route_pb2
from penstock_inference.caching.exact import ENTRY_OVERHEAD_BYTES, ResponseCache
from penstock_inference.caching.keys import answer_key, cache_salt, question_of

VARIANT = route_pb2.Variant(
    name="triage-7", base_model="triage", adapter="support-7", prompt_template_version="3"
)
Request = admitted_pb2.AdmittedRequest


def admitted(**fields: Any) -> Request:
    """A request as admission leaves it; `fields` replace what is in the request."""
    made = Request(request_id="req-1", variant="triage-7", route_version=9)
    made.deadline.seconds = 1_800_000_000
    request = {
        "model": "triage",
        "tenant": "acme",
        "messages": [
            {"role": "system", "content": "Sort tickets."},
            {"role": "user", "content": "My invoice is wrong"},
        ],
        "sampling": {"temperature": 0, "max_tokens": 64, "seed": seed_of("req-1")},
    } | fields
    json_format.ParseDict(request, made.request)
    return made


def result(text: str = "billing", **fields: Any) -> engine_service_pb2.WorkResult:
    made = engine_service_pb2.WorkResult(
        text=text,
        finish_reason=response_pb2.FINISH_REASON_STOP,
        usage=common_pb2.Usage(prompt_tokens=40, completion_tokens=3, cached_prompt_tokens=16),
        first_token_s=0.1,
        generation_s=0.2,
    )
    made.MergeFrom(engine_service_pb2.WorkResult(**fields))
    return made


def changed(change: Callable[[Request], None], base: Request | None = None) -> Request:
    made = Request()
    made.CopyFrom(base or admitted())
    change(made)
    return made


# One entry for everything that an answer depends on.
RELEVANT: dict[str, Callable[[Request], Any]] = {
    "tenant": lambda r: setattr(r.request, "tenant", "bolt"),
    "model": lambda r: setattr(r.request, "model", "other"),
    "role": lambda r: setattr(r.request.messages[0], "role", "user"),
    "text": lambda r: setattr(r.request.messages[-1], "content", "My invoice is wrong "),
    "turn": lambda r: r.request.messages.add(role="user", content=""),
    "fewer turns": lambda r: r.request.messages.pop(0),
    "prompt": lambda r: setattr(r.request, "prompt", "Sort tickets."),
    "context": lambda r: r.request.contexts.add(text="facts"),
    "schema": lambda r: r.request.response_schema.update({"type": "object"}),
    "max_tokens": lambda r: setattr(r.request.sampling, "max_tokens", 65),
    "top_p": lambda r: setattr(r.request.sampling, "top_p", 0.5),
    "top_k": lambda r: setattr(r.request.sampling, "top_k", 4),
    "stop": lambda r: r.request.sampling.stop.append("}"),
    "presence": lambda r: setattr(r.request.sampling, "presence_penalty", 0.5),
    "frequency": lambda r: setattr(r.request.sampling, "frequency_penalty", 0.5),
    "temperature": lambda r: r.request.sampling.MergeFrom(
        type(r.request.sampling)(temperature=0.5, seed=11)
    ),
}
IRRELEVANT: dict[str, Callable[[Request], Any]] = {
    "labels": lambda r: r.request.labels.update({"run": "2"}),
    "deadline": lambda r: r.deadline.FromSeconds(1_900_000_000),
    "its own deadline": lambda r: r.request.deadline.FromSeconds(1_900_000_000),
    "timeout": lambda r: r.request.timeout.FromSeconds(9),
    "priority": lambda r: setattr(r.request, "priority", -3),
    "ordering_key": lambda r: setattr(r.request, "ordering_key", "k"),
    "idempotency_key": lambda r: setattr(r.request, "idempotency_key", "k"),
    "id and seed": lambda r: r.MergeFrom(
        Request(
            request_id="req-2",
            request={"sampling": {"seed": seed_of("req-2")}},  # type: ignore[arg-type]
        )
    ),
    "stream": lambda r: setattr(r, "stream", True),
    "reply": lambda r: setattr(r, "reply_partition", 1),
    "route version": lambda r: setattr(r, "route_version", 10),
    "variant at admission": lambda r: setattr(r, "variant", "withdrawn"),
}
OTHER_VARIANTS = {
    "name": route_pb2.Variant(name="other"),
    "base_model": route_pb2.Variant(base_model="other"),
    "adapter": route_pb2.Variant(adapter="support-8"),
    "prompt_template_version": route_pb2.Variant(prompt_template_version="4"),
}


@given(
    relevant=st.sets(st.sampled_from(sorted(RELEVANT))),
    irrelevant=st.sets(st.sampled_from(sorted(IRRELEVANT))),
    variant=st.none() | st.sampled_from(sorted(OTHER_VARIANTS)),
)
def test_requests_share_a_key_just_when_only_what_does_not_matter_differs(
    relevant: set[str], irrelevant: set[str], variant: str | None
) -> None:
    other = admitted()
    for name in sorted(irrelevant):
        IRRELEVANT[name](other)
    for name in sorted(relevant):
        RELEVANT[name](other)
    serves = route_pb2.Variant()
    serves.CopyFrom(VARIANT)
    serves.MergeFrom(OTHER_VARIANTS[variant] if variant else route_pb2.Variant())
    shared = answer_key(admitted(), VARIANT) == answer_key(other, serves)
    assert shared is (not relevant and variant is None)


@given(st.lists(st.tuples(*[st.text(max_size=3)] * 6), min_size=2, max_size=2, unique=True))
def test_parts_do_not_run_into_each_other(pair: list[tuple[str, ...]]) -> None:
    keys = []
    for tenant, model, *names in pair:
        fields = ("name", "base_model", "adapter", "prompt_template_version")
        variant = route_pb2.Variant(**dict(zip(fields, names, strict=True)))  # type: ignore[arg-type]
        keys.append(answer_key(admitted(tenant=tenant, model=model), variant))
    assert keys[0] != keys[1]


def test_every_field_of_a_request_was_looked_at() -> None:
    known = {"tenant", "model", "messages", "prompt", "contexts", "response_schema", "sampling"}
    ignored = {"labels", "deadline", "timeout", "priority", "ordering_key", "idempotency_key"}
    fields = {field.name for field in admitted().request.DESCRIPTOR.fields}
    assert fields == known | ignored | {"no_cache"}


@pytest.mark.parametrize(
    ("change", "cacheable"),
    [
        ({}, True),
        ({"no_cache": True}, False),
        # Drawn, with a seed that admission derived: two such requests want two answers.
        ({"sampling": {"temperature": 0.7, "seed": seed_of("req-1")}}, False),
        ({"sampling": {"temperature": 0.7, "seed": 7}}, True),
        ({"sampling": {"seed": seed_of("req-1")}}, True),  # unset is greedy
    ],
)
def test_only_requests_for_one_certain_answer_have_a_key(
    change: dict[str, Any], cacheable: bool
) -> None:
    assert (answer_key(admitted(**change), VARIANT) is not None) is cacheable
    assert (question_of(admitted(**change), VARIANT) is not None) is cacheable


@pytest.mark.parametrize("purpose", [p for p in common_pb2.Purpose.values() if p])
def test_replays_shadows_and_probes_have_no_key(purpose: common_pb2.Purpose.ValueType) -> None:
    assert answer_key(changed(lambda r: setattr(r, "purpose", purpose)), VARIANT) is None


def test_seeds_count_where_tokens_are_drawn() -> None:
    drawn = [
        answer_key(admitted(sampling={"temperature": 1, "seed": seed}), VARIANT) for seed in (1, 2)
    ]
    assert drawn[0] != drawn[1]


def test_a_hit_is_the_answer_with_nothing_used() -> None:
    cache = ResponseCache(1 << 20, ttl_s=60)
    assert cache.put(b"k", result(), 0.0)
    hit = cache.get(b"k", 1.0)
    assert hit is not None
    assert hit.result == engine_service_pb2.WorkResult(
        text="billing", finish_reason=response_pb2.FINISH_REASON_STOP, usage=common_pb2.Usage()
    )
    assert hit.result.HasField("usage")
    assert hit.avoided == result().usage
    assert hit.similarity is None
    hit.result.text = "spoilt by its holder"
    again = cache.get(b"k", 1.0)
    assert again is not None
    assert again.result.text == "billing"


@pytest.mark.parametrize(
    "incomplete",
    [
        {"error": common_pb2.Error(code=common_pb2.ERROR_CODE_CANCELLED)},
        {"finish_reason": response_pb2.FINISH_REASON_ABORTED},
    ],
)
def test_only_complete_answers_are_kept(incomplete: dict[str, Any]) -> None:
    cache = ResponseCache(1 << 20, ttl_s=60)
    assert not cache.put(b"k", result(**incomplete), 0.0)
    assert cache.get(b"k", 0.0) is None
    assert cache.put(b"k", result(finish_reason=response_pb2.FINISH_REASON_LENGTH), 0.0)


def test_an_answer_stands_for_its_time_to_live() -> None:
    cache = ResponseCache(1 << 20, ttl_s=60)
    cache.put(b"k", result(), 100.0)
    assert cache.get(b"k", 159.9) is not None
    assert cache.get(b"k", 160.0) is None
    assert (len(cache), cache.size_bytes) == (0, 0)


def test_the_least_recently_used_goes_first() -> None:
    size = len(result("x" * 100).SerializeToString()) + ENTRY_OVERHEAD_BYTES
    cache = ResponseCache(size * 10, ttl_s=60)
    for n in range(10):
        assert cache.put(bytes([n]), result("x" * 100), 0.0)
    assert cache.get(bytes([0]), 0.0) is not None
    cache.put(b"new", result("x" * 100), 0.0)
    assert cache.size_bytes == size * 10
    assert [n for n in range(10) if cache.get(bytes([n]), 0.0) is None] == [1]


def test_bounds_hold_in_bytes_and_entries() -> None:
    cache = ResponseCache(100_000, ttl_s=60, max_entries=3)
    for n in range(9):
        cache.put(bytes([n]), result(), 0.0)
    assert len(cache) == 3
    assert not cache.put(b"huge", result("x" * 20_000), 0.0), "an eighth of it at most"
    cache.put(bytes([8]), result("other"), 0.0)
    assert len(cache) == 3
    cache.clear()
    assert (len(cache), cache.size_bytes) == (0, 0)


def test_a_cache_of_no_size_keeps_nothing() -> None:
    cache = ResponseCache(0, ttl_s=60)
    assert not cache.put(b"k", result(), 0.0)


def test_salts_differ_by_tenant_and_adapter_and_name_neither() -> None:
    salts = {cache_salt(t, a) for t in ("acme", "bolt") for a in ("", "support-7")}
    assert len(salts) == 4
    assert cache_salt("ab", "c") != cache_salt("a", "bc")
    assert not any("acme" in salt for salt in salts)
    # The same on every pump and after every restart, or a restart would empty the engines.
    assert cache_salt("acme", "support-7") == "f542ee4d64af119df653f86b5fa3d585"


def test_key_and_lookup_cost_microseconds() -> None:
    asked = admitted(
        messages=[{"role": "user", "content": json.dumps(list(range(400)))}], labels={"a": "b"}
    )
    cache = ResponseCache(1 << 20, ttl_s=60)

    def round_trip() -> None:
        key = answer_key(asked, VARIANT)
        assert key is not None
        cache.get(key, 0.0)
        cache.put(key, result_, 0.0)

    result_ = result()
    best_s = min(timeit.repeat(round_trip, number=1000, repeat=5)) / 1000
    assert best_s < 60e-6, "about 10 µs here; four times that on a slow machine"
