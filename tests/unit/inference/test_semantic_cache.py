"""The semantic cache: what is compared by meaning, what has to be equal, and its bounds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.settings import SettingsError
from penstock.v1 import admitted_pb2, route_pb2
from penstock_inference.caching.answer_cache import AnswerCache, make_answer_cache
from penstock_inference.caching.embedding import HashedNgrams, Vectors
from penstock_inference.caching.exact import ResponseCache
from penstock_inference.caching.keys import Question, question_of
from penstock_inference.caching.semantic import SemanticCache, SemanticKey
from penstock_inference.settings import InferenceSettings
from tests.unit.inference.test_caching import (
    IRRELEVANT,
    OTHER_VARIANTS,
    RELEVANT,
    VARIANT,
    admitted,
    changed,
    result,
)

MIB = 1 << 20


class Degrees:
    """Texts are angles: the cosine of two is that of their difference."""

    name = "degrees"
    dimensions = 2

    def embed(self, texts: Sequence[str]) -> Vectors:
        angles = [math.radians(float(text)) for text in texts]
        return np.array([(math.cos(a), math.sin(a)) for a in angles], dtype=np.float32)


def key(text: str, partition: bytes = b"p") -> SemanticKey:
    return SemanticKey(Question(partition, text))


def cache(threshold: float = math.cos(math.radians(10.5)), **bounds: Any) -> SemanticCache:
    return SemanticCache(Degrees(), threshold, **({"max_bytes": MIB, "ttl_s": 60.0} | bounds))


def found(cached: SemanticCache, text: str, now_s: float = 0.0, partition: bytes = b"p") -> str:
    hit = cached.get(key(text, partition), now_s)
    return hit.result.text if hit else ""


@pytest.mark.parametrize("name", sorted(RELEVANT))
def test_all_but_the_last_user_turn_has_to_be_equal(name: str) -> None:
    mine, other = question_of(admitted(), VARIANT), question_of(changed(RELEVANT[name]), VARIANT)
    assert mine is not None
    assert mine.text == "My invoice is wrong"
    if name == "text":
        assert other == Question(mine.partition, "My invoice is wrong ")
    elif name == "turn":
        assert other is None, "the turn that was added has no words"
    else:
        assert other is not None
        assert other.partition != mine.partition


def test_what_does_not_matter_leaves_the_question_and_another_variant_does_not() -> None:
    mine = question_of(admitted(), VARIANT)
    assert mine is not None
    for change in IRRELEVANT.values():
        assert question_of(changed(change), VARIANT) == mine
    for part in OTHER_VARIANTS.values():
        variant = route_pb2.Variant()
        variant.CopyFrom(VARIANT)
        variant.MergeFrom(part)
        other = question_of(admitted(), variant)
        assert other is not None
        assert other.partition != mine.partition


def test_a_conversation_that_does_not_end_with_its_user_is_not_compared() -> None:
    def prefill(request: admitted_pb2.AdmittedRequest) -> None:
        request.request.messages.add(role="assistant", content="{")

    assert question_of(changed(prefill), VARIANT) is None


def test_a_prompt_is_compared_as_a_whole() -> None:
    asked = [question_of(admitted(messages=[], prompt=text), VARIANT) for text in ("a", "b")]
    assert asked[0] is not None
    assert asked[0]._replace(text="b") == asked[1]


def test_the_most_similar_question_answers_when_it_is_similar_enough() -> None:
    cached = cache()
    for angle in ("0", "30", "41"):
        assert cached.put(key(angle), result(angle), 0.0)
    hit = cached.get(key("37"), 1.0)
    assert hit is not None
    assert hit.result.text == "41"
    assert hit.similarity == pytest.approx(math.cos(math.radians(4)), abs=1e-6)
    assert hit.avoided == result().usage
    assert found(cached, "10") == "0"
    assert found(cached, "11") == ""
    assert found(cached, "0", partition=b"another tenant") == ""


def test_what_is_too_old_gives_way_to_the_next_best() -> None:
    cached = cache()
    cached.put(key("0"), result("old"), 0.0)
    cached.put(key("5"), result("young"), 30.0)
    assert found(cached, "1", now_s=59.0) == "old"
    assert found(cached, "1", now_s=60.0) == "young"
    assert found(cached, "1", now_s=90.0) == ""
    assert (len(cached), cached.size_bytes) == (0, 0)


def test_one_lookup_compares_with_a_bounded_number() -> None:
    cached = cache(max_rows=3)
    for angle in ("0", "30", "60"):
        cached.put(key(angle), result(angle), 0.0)
    assert found(cached, "0") == "0"
    cached.put(key("90"), result("90"), 0.0)
    assert [found(cached, angle) for angle in ("0", "30", "60", "90")] == ["0", "", "60", "90"]
    one = cache(max_rows=1)
    for angle in ("0", "90"):
        one.put(key(angle), result(angle), 0.0)
    assert [found(one, angle) for angle in ("0", "90")] == ["", "90"]


def test_incomplete_answers_and_wordless_questions_are_not_kept() -> None:
    cached = SemanticCache(HashedNgrams(), 0.5, MIB, 60.0)
    assert not cached.put(key("?!"), result(), 0.0)
    assert not cached.put(key("words"), result(finish_reason=3), 0.0)
    assert len(cached) == 0


Step = tuple[str, int, int, int]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["get", "put"]),
            st.integers(0, 3),  # partition
            st.integers(0, 11).map(lambda n: n * 30),  # angle
            st.integers(0, 20),  # seconds that pass
        ),
        max_size=80,
    )
)
def test_it_finds_what_a_plain_list_finds(steps: list[Step]) -> None:
    # Bounds that bite: 8 entries in all, 3 in a partition.
    size = cache()._size(result("000").SerializeToString())
    cached = cache(max_bytes=size * 8, max_rows=3)
    plain: list[tuple[int, int, int]] = []  # partition, angle, when; by last use
    now_s = 0
    for verb, partition, angle, passed in steps:
        now_s += passed
        text, name = f"{angle:03}", bytes([partition])
        if verb == "put":
            if not any(entry[:2] == (partition, angle) for entry in plain):
                cached.put(key(text, name), result(text), float(now_s))
                same = [entry for entry in plain if entry[0] == partition]
                if len(same) == 3:
                    plain.remove(same[0])
                plain.append((partition, angle, now_s))
                del plain[:-8]
            continue
        expected = ""
        for entry in [e for e in plain if e[:2] == (partition, angle)]:
            plain.remove(entry)
            if now_s - entry[2] < 60:
                plain.append(entry)
                expected = text
        assert found(cached, text, float(now_s), name) == expected
        assert len(cached) == len(plain)
        assert cached.size_bytes == size * len(plain)


def test_the_exact_cache_is_asked_first_and_both_keep() -> None:
    both = AnswerCache(ResponseCache(MIB, 60.0), SemanticCache(HashedNgrams(), 0.6, MIB, 60.0))
    asked = both.key(admitted(), VARIANT)
    assert asked is not None
    assert both.get(asked, 0.0) is None
    both.put(asked, result("billing"), 0.0)
    same = both.get(both.key(admitted(labels={"run": "2"}), VARIANT), 1.0)
    assert same is not None
    assert same.similarity is None
    near = [{"role": "user", "content": "my invoice was wrong!"}]
    system = [{"role": "system", "content": "Sort tickets."}]
    similar = both.get(both.key(admitted(messages=system + near), VARIANT), 1.0)
    assert similar is not None
    assert similar.result.text == "billing"
    assert 0.6 <= (similar.similarity or 0) < 1
    assert both.get(both.key(admitted(messages=near), VARIANT), 1.0) is None
    assert both.key(admitted(no_cache=True), VARIANT) is None
    assert both.get(None, 0.0) is None
    both.put(None, result(), 0.0)


def test_settings_make_the_caches_and_ask_for_a_threshold() -> None:
    on = make_answer_cache(InferenceSettings.load({}))
    asked = on.key(admitted(), VARIANT)
    assert asked is not None
    assert asked.semantic is None
    off = make_answer_cache(InferenceSettings.load({}, cache_mib=0))
    assert off.key(admitted(), VARIANT) is None
    with pytest.raises(SettingsError, match=r"THRESHOLD.*calibrate"):
        InferenceSettings.load({}, semantic_cache_mib=8)
    similar = InferenceSettings.load({}, semantic_cache_mib=8, semantic_cache_threshold=0.9)
    asked = make_answer_cache(similar).key(admitted(), VARIANT)
    assert asked is not None
    assert asked.semantic is not None
