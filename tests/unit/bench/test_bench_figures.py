"""What the benchmark makes of its rounds."""

import json

import pytest
import stats
from latency import summary
from records import Shape, admitted_records, request_records
from results_page import page
from workload import endless_model

from penstock.identity import seed_of
from penstock.v1 import admitted_pb2, request_pb2


def test_an_interval_holds_its_middle_and_is_the_same_each_time() -> None:
    values = [4.0, 5.0, 6.0, 5.5, 4.5]
    low, middle, high = stats.interval_of_mean(values)
    assert middle == pytest.approx(5.0)
    assert 4.0 <= low < middle < high <= 6.0
    assert stats.interval_of_mean(values) == (low, middle, high)


def test_one_round_has_no_interval() -> None:
    assert stats.interval_of_mean([7.0]) == (7.0, 7.0, 7.0)


def test_what_slows_a_whole_round_leaves_the_ratio_alone() -> None:
    below = [100.0, 50.0, 200.0]
    low, middle, high = stats.interval_of_ratio([0.8 * value for value in below], below)
    assert low == pytest.approx(0.8)
    assert middle == pytest.approx(0.8)
    assert high == pytest.approx(0.8)


def test_a_ratio_needs_the_same_rounds() -> None:
    with pytest.raises(ValueError, match="2 and 1 rounds"):
        stats.interval_of_ratio([1.0, 2.0], [1.0])


def test_added_latency_is_what_the_engine_did_not_take() -> None:
    found = summary([50.0 + n for n in range(100)], 50.0)
    assert found == {"added_p50_ms": 49.5, "added_p99_ms": 99.0, "added_max_ms": 99.0}


def test_a_shape_spreads_tenants_and_keys() -> None:
    made = list(request_records("run", 12, Shape(tenants=3, keys=4)))
    requests = [request_pb2.GenerateRequest.FromString(value) for _, value, _ in made]
    assert len({request.tenant for request in requests}) == 3
    assert {key for key, _, _ in made} == {b"key-0", b"key-1", b"key-2", b"key-3"}
    assert len({request.idempotency_key for request in requests}) == 12


def test_admitted_records_are_not_cacheable() -> None:
    ((_, value, _),) = admitted_records("run", 1, Shape())
    admitted = admitted_pb2.AdmittedRequest.FromString(value)
    assert admitted.request.sampling.seed == seed_of(admitted.request_id)
    assert admitted.request.sampling.temperature == 1


def test_the_endless_model_ends_with_a_token_of_no_answer(tmp_path) -> None:  # type: ignore[no-untyped-def]
    model = endless_model(tmp_path)
    assert json.loads((model / "config.json").read_text())["eos_token_id"] == 0
    assert json.loads((model / "generation_config.json").read_text())["eos_token_id"] == 0
    assert json.loads((model / "tokenizer_config.json").read_text())["eos_token"] == "<|pad|>"


def test_the_page_names_what_did_not_run_and_what_was_not_reached() -> None:
    circumstances = {
        "at": "2026-01-01T00:00:00+00:00",
        "machine": {"cpu": "x", "cores": 2, "vector": [], "memory_gib": 4, "python": "3.11"},
        "versions": {"kafka": "4"},
        "commit": "abc",
        "load_average": [0.1, 0.2, 0.3],
    }
    visits = [
        {"contender": name, "round": number, "runs": [{"tokens_per_s": rate}]}
        for name, rate in (("B", 1000.0), ("D", 700.0))
        for number in range(5)
    ]
    part = {
        "circumstances": circumstances,
        "requests": 1,
        "max_tokens": 64,
        "visits": visits,
        "failures": {"F": "ImportError: none"},
        "complete": True,
    }
    text = page({"throughput": part}, quick=False)
    assert "| D/B | 0.70 | 0.70 to 0.70 | at least 0.88: **no** |" in text
    assert "ImportError: none" in text
    assert "load average at the start 0.1, 0.2, 0.3" in text.replace("\n", " ")
