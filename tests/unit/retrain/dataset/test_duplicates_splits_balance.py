"""Near-duplicates, splits by key, and classes with a share."""

from __future__ import annotations

import itertools
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_retrain.dataset.balance import class_of, most_per_class
from penstock_retrain.dataset.duplicates import duplicates_of, shingles
from penstock_retrain.dataset.examples import Example, Pool, Split
from penstock_retrain.dataset.policy import NearDuplicates, SplitShares
from penstock_retrain.dataset.splits import priority, split_of

LONG = "the printer on the third floor does not answer since this morning and blinks in red " * 3


def test_what_is_alike_is_found_and_what_is_not_stays() -> None:
    texts = [
        LONG,
        LONG.upper().replace(" ", "  ") + "!",
        LONG + "thanks",
        "my invoice is wrong",
        "My invoice is wrong.",
        "my invoice is right",
        "",
        " ",
        "?!",
    ]
    assert duplicates_of(texts, NearDuplicates()) == [None, 0, 0, None, 3, None, None, 6, None]
    assert duplicates_of(texts, NearDuplicates()) == duplicates_of(texts, NearDuplicates())


def test_chains_of_small_changes_do_not_swallow_the_end() -> None:
    words = LONG.split()
    chain = [" ".join([*words[n:], *(f"other{i}" for i in range(n))]) for n in range(0, 40, 2)]
    found = duplicates_of(chain, NearDuplicates(threshold=0.8))
    kept = [n for n, other in enumerate(found) if other is None]
    assert len(kept) > 3
    for one, other in itertools.combinations(kept, 2):
        a, b = shingles(chain[one], 3), shingles(chain[other], 3)
        assert len(a & b) / len(a | b) < 0.8


WORDS = st.lists(
    st.sampled_from(["red", "green", "blue", "printer", "invoice", "late", "wrong", "app"]),
    max_size=9,
)


@settings(max_examples=60)
@given(st.lists(WORDS.map(" ".join), max_size=8), st.sampled_from([0.5, 0.85, 1.0]))
def test_whoever_is_left_out_repeats_one_that_stays(texts: list[str], threshold: float) -> None:
    policy = NearDuplicates(threshold=threshold, shingle=2)
    for text, other in zip(texts, duplicates_of(texts, policy), strict=True):
        if other is not None:
            a, b = shingles(text, 2), shingles(texts[other], 2)
            assert len(a & b) >= threshold * len(a | b)
            assert duplicates_of(texts, policy)[other] is None


def test_none_is_missed_that_comparing_all_pairs_finds() -> None:
    draw = random.Random(3)
    vocabulary = [f"word{n}" for n in range(300)]
    texts = []
    for _ in range(60):
        words = draw.choices(vocabulary, k=40)
        for _ in range(5):
            texts.append(" ".join(words))
            words[draw.randrange(40)] = draw.choice(vocabulary)
    policy = NearDuplicates(threshold=0.8)
    kept: list[int] = []
    expected = []
    for number, text in enumerate(texts):
        mine = shingles(text, policy.shingle)
        others = (n for n in kept if _similarity(mine, shingles(texts[n], policy.shingle)) >= 0.8)
        expected.append(next(others, None))
        if expected[-1] is None:
            kept.append(number)
    assert duplicates_of(texts, policy) == expected
    assert 100 < len(kept) < 250


def _similarity(one: frozenset[int], other: frozenset[int]) -> float:
    return len(one & other) / len(one | other)


def test_a_key_keeps_its_side_and_shares_come_out() -> None:
    shares = SplitShares(validation=0.1, golden=0.2)
    sides = {f"key-{n}": split_of(f"key-{n}", shares) for n in range(20_000)}
    counts = Counter(sides.values())
    assert counts[Split.GOLDEN] / 20_000 == pytest.approx(0.2, abs=0.01)
    assert counts[Split.VALIDATION] / 20_000 == pytest.approx(0.1, abs=0.01)
    # More golden keys: those that were stay.
    more = SplitShares(validation=0.1, golden=0.3)
    assert all(
        split_of(key, more) is Split.GOLDEN for key, side in sides.items() if side is Split.GOLDEN
    )
    # For good: these are the sides that earlier datasets have.
    assert [n for n in range(40) if split_of(f"key-{n}", SplitShares()) is Split.GOLDEN] == [
        6,
        15,
        18,
        27,
    ]
    assert split_of("x", SplitShares(validation=0, golden=0)) is Split.TRAIN
    assert 0 <= priority("x", 1) < 1
    assert priority("x", 1) != priority("x", 2)


@given(
    st.dictionaries(st.text(max_size=2), st.integers(1, 500), min_size=1, max_size=8),
    st.floats(0.05, 1),
)
def test_no_class_has_more_than_its_share(counts: dict[str, int], share: float) -> None:
    most = most_per_class(counts, share)
    kept = [min(count, most) for count in counts.values()]
    if share * len(counts) < 1:
        assert len(set(kept)) == 1  # it cannot be: as even as can be
    else:
        assert most >= min(counts.values())
        assert max(kept) <= share * sum(kept) or most == min(counts.values())
        # One more would be too many.
        larger = [min(count, most + 1) for count in counts.values()]
        assert most == max(counts.values()) or max(larger) > share * sum(larger)


def test_classes_by_answer_field_and_label() -> None:
    example = Example(
        "r", "g", (), "p", '{"category": "bug", "stars": 4}', None, "label", {"task": "a.b"}, 0,
        Pool.RECENT,
    )  # fmt: skip
    assert class_of(example, "target.category") == "bug"
    assert class_of(example, "target.stars") == "4"
    assert class_of(example, "target.none") == ""
    assert class_of(example, "label.task") == "a.b"
    assert class_of(example, "target") == '{"category": "bug", "stars": 4}'
