"""Answers and opinions become observations: each once, joined, and the same when folded again."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest

from penstock_retrain.canary import folding as module
from penstock_retrain.canary.config import Arm
from penstock_retrain.canary.folding import Count, Finding, Folding, Observation, Pair
from penstock_retrain.canary.quantities import Answer, Opinion, Reading

RIGHT, WRONG = '{"category": "billing"}', '{"category": "bug"}'
OLD, NEW = Arm.CHAMPION, Arm.CANDIDATE


def folding(*metrics: str, settle_ms: int = 1000) -> Folding:
    return Folding("old", "new", metrics, Reading("category", "EUR"), settle_ms)


def answer(
    request_id: str = "r1", variant: str = "new", text: str = RIGHT, **more: object
) -> Answer:
    fields: dict[str, object] = {"route_version": 3, "published_ms": 0, "total_s": 0.5} | more
    return Answer(request_id, variant, text=text, **fields)  # type: ignore[arg-type]


def label(request_id: str = "r1", **more: object) -> Opinion:
    return Opinion(request_id, **({"label": "billing"} | more))  # type: ignore[arg-type]


def folded(fold: Folding, *steps: Answer | Opinion) -> list[Finding]:
    found: list[Finding] = []
    for step in steps:
        found += fold.said(step) if isinstance(step, Opinion) else fold.answered(step)
    return found


@pytest.mark.parametrize(
    ("variant", "text", "expected"),
    [
        ("new", RIGHT, [Observation(NEW, {"accuracy": 1.0})]),
        ("old", WRONG, [Observation(OLD, {"accuracy": 0.0})]),
        ("another", RIGHT, []),
    ],
)
def test_an_opinion_is_of_the_variant_that_answered(
    variant: str, text: str, expected: list[Finding]
) -> None:
    assert folded(folding("accuracy"), answer(variant=variant, text=text), label()) == expected


def test_an_answer_that_is_nested_too_deeply_is_wrong_and_ends_nothing() -> None:
    for depth in range(900, 1000):  # at some depth what was read cannot be written again
        deep = f'{{"category": {"[" * depth}{"]" * depth}}}'
        found = folded(folding("accuracy"), answer(text=deep), label(label='{"category": "bug"}'))
        assert found == [Observation(NEW, {"accuracy": 0.0})]


def test_of_two_opinions_of_a_kind_the_first_counts() -> None:
    fold = folding("accuracy", "value")
    found = folded(
        fold,
        answer(),
        label(),
        label(label="bug"),
        Opinion("r1", value=7.0, value_unit="EUR"),
        Opinion("r1", value=9.0, value_unit="EUR"),
        Opinion("r1", value=9.0, value_unit="USD"),
    )
    assert found == [Observation(NEW, {"accuracy": 1.0}), Observation(NEW, {"value": 7.0})]


def test_an_opinion_on_what_is_not_known_says_nothing() -> None:
    assert folded(folding("accuracy"), label("elsewhere")) == []


def test_what_every_answer_has_comes_together() -> None:
    fold = folding("accuracy", "latency_s", "error")
    failed = answer("r2", answered=False, failed=True)
    rejected = answer("r3", answered=False)
    assert folded(fold, answer(), failed, rejected) == [
        Observation(NEW, {"latency_s": 0.5, "error": 0.0}),
        # What never came took longer than anything.
        Observation(NEW, {"latency_s": float("inf"), "error": 1.0}),
    ]


def test_an_answer_from_the_cache_says_nothing_but_counts() -> None:
    fold = folding("accuracy", "latency_s")
    fold.begin(1)
    assert folded(fold, answer(cached=True), label()) == []
    assert list(fold.settled(1000)) == [Count(NEW, "requests")]


def test_an_answer_that_comes_again_counts_once() -> None:
    fold = folding("accuracy", "latency_s")
    fold.begin(1)
    assert folded(fold, answer(), answer()) == [Observation(NEW, {"latency_s": 0.5})]
    assert list(fold.settled(1000)) == [Count(NEW, "requests")]


def test_a_conversation_gives_one_value() -> None:
    fold = folding("error", "accuracy")
    steps = [step for n in range(3) for step in (answer(f"r{n}", unit="acme/talk"), label(f"r{n}"))]
    assert folded(fold, *steps) == [
        Observation(NEW, {"error": 0.0}),
        Observation(NEW, {"accuracy": 1.0}),
    ]


def test_units_count_for_the_split_once_a_step_and_when_they_are_old_enough() -> None:
    fold = folding("accuracy", settle_ms=1000)
    folded(
        fold,
        answer("r1", "old", published_ms=0, route_version=2),  # of the step before
        answer("r2", "old", published_ms=10),
        answer("r3", "new", published_ms=20, unit="acme/talk"),
        answer("r4", "new", published_ms=30, unit="acme/talk"),
        label("r2"),
    )
    # Before the step's version is known nothing counts.
    assert list(fold.settled(99_999)) == []
    fold.begin(3)
    assert list(fold.settled(1009)) == []
    assert list(fold.settled(1030)) == [
        Count(OLD, "requests"),
        Count(OLD, "feedback"),
        Count(NEW, "requests"),
    ]
    # In the next step the conversation counts again.
    folded(fold, answer("r5", "new", route_version=4, unit="acme/talk"))
    fold.begin(4)
    assert list(fold.settled(9999)) == [Count(NEW, "requests")]


def both(fold: Folding, *order: str) -> list[Finding]:
    found: list[Finding] = []
    for each in order:
        match each:
            case "answer":
                found += fold.answered(answer(variant="old", text=WRONG))
            case "copy":
                found += fold.copied(answer(variant="new", text=RIGHT))
            case _:
                found += fold.said(label())
    return found


@pytest.mark.parametrize(
    "order",
    [("answer", "copy", "said"), ("answer", "said", "copy"), ("copy", "answer", "said", "copy")],
)
def test_a_pair_needs_both_answers_and_what_is_right(order: tuple[str, ...]) -> None:
    found = both(folding("accuracy", "error"), *order)
    pairs = [each for each in found if isinstance(each, Pair)]
    assert pairs == [Pair({"accuracy": 0.0}, {"accuracy": 1.0})]


@pytest.mark.parametrize("order", [("answer", "copy", "said"), ("answer", "said", "copy")])
def test_in_pairs_an_opinion_counts_once(order: tuple[str, ...]) -> None:
    fold = Folding("old", "new", ["accuracy", "score"], Reading("category"), None, pairs=True)
    assert both(fold, *order) == [Pair({"accuracy": 0.0}, {"accuracy": 1.0})]
    # What cannot be paired still comes by itself.
    assert list(fold.said(Opinion("r1", score=0.5))) == [Observation(OLD, {"score": 0.5})]


def test_a_copy_without_an_answer_is_no_pair() -> None:
    fold = folding("accuracy")
    silent = answer(variant="new", answered=False, failed=True)
    found = [*fold.answered(answer(variant="old")), *fold.copied(silent), *fold.said(label())]
    assert found == [Observation(OLD, {"accuracy": 1.0})]


def test_scores_are_of_the_answer_that_was_shown_and_make_no_pair() -> None:
    fold = folding("score")
    shown, copy = answer(variant="old"), answer(variant="new")
    found = [*fold.answered(shown), *fold.copied(copy), *fold.said(Opinion("r1", score=0.5))]
    assert found == [Observation(OLD, {"score": 0.5})]


def test_an_opinion_on_what_was_let_go_of_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ANSWERS", 10)
    fold = folding("accuracy")
    folded(fold, *(answer(f"r{n}", published_ms=n) for n in range(13)))
    assert fold.full
    fold.trim()
    assert not fold.full
    found = folded(fold, *(label(f"r{n}") for n in (0, 1, 2, 3, 99)))
    assert (found, fold.late) == ([Observation(NEW, {"accuracy": 1.0})], 3)


def records(draw: random.Random) -> list[Answer | Opinion]:
    found: list[Answer | Opinion] = []
    for n in range(400):
        variant = draw.choice(["old", "new", "else"])
        unit = draw.choice(["", "", "a/1", "a/2", f"a/{n // 5}"])
        text = draw.choice([RIGHT, WRONG])
        version = 3 if n < 150 else 4
        found.append(
            answer(f"r{n}", variant, text, unit=unit, published_ms=n * 10, route_version=version)
        )
        if draw.random() < 0.7:
            found.append(label(f"r{draw.randrange(n + 1)}"))
    return found


def watched(fold: Folding, steps: Iterable[tuple[int, Answer | Opinion]]) -> list[Finding]:
    """One record a round; everything that is ten milliseconds old by the index has been read."""
    found: list[Finding] = []
    for index, step in steps:
        found += folded(fold, step)
        found += fold.settled(index * 7)
    return found


@pytest.mark.parametrize("seed", range(5))
def test_folded_again_up_to_where_it_was_it_goes_on_as_if_nothing_had_happened(seed: int) -> None:
    draw = random.Random(seed)
    steps = list(enumerate(records(draw)))
    whole = folding("accuracy", "error", "latency_s", settle_ms=300)
    whole.begin(4)
    cut = draw.randrange(1, len(steps))
    before, after = watched(whole, steps[:cut]), watched(whole, steps[cut:])
    again = folding("accuracy", "error", "latency_s", settle_ms=300)
    again.begin(4)
    # As `Observer.recall` does: all answers, then all opinions, then what was old enough.
    # (What was let go of on the way is in test_recalling.py.)
    for kind in (Answer, Opinion):
        folded(again, *(step for _, step in steps[:cut] if isinstance(step, kind)))
    list(again.settled((cut - 1) * 7))
    assert watched(again, steps[cut:]) == after
    assert before
