"""The right answer, from what people said of the one that was given."""

from __future__ import annotations

import json
from typing import Any

import pytest

from penstock_retrain.dataset.examples import LeftOut
from penstock_retrain.dataset.labels import Labelled, apply_label, label_of
from penstock_retrain.dataset.policy import DatasetPolicy, LabelSource
from penstock_retrain.dataset.rows import FeedbackRow

ANSWER = '{"category": "bug", "priority": "low"}'


def said(n: int = 0, **what: Any) -> FeedbackRow:
    return FeedbackRow(0, n, n, "k", f"f{n}", "r", "t", **what)


@pytest.mark.parametrize(
    ("answer", "label", "field", "target"),
    [
        ("bug", "billing", "", "billing"),
        ("bug", "billing", "category", None),
        # A plain label of a JSON answer: the field, or a value that is there already.
        (ANSWER, "billing", "category", '{"category": "billing", "priority": "low"}'),
        (ANSWER, "billing", "", None),
        (ANSWER, "Bug ", "", ANSWER),
        (ANSWER, "BUG", "category", ANSWER),
        # A JSON label corrects its fields, and keeps the rest and its spacing.
        (ANSWER, '{"priority": "high"}', "", '{"category": "bug", "priority": "high"}'),
        ('{"a":1,"b":2}', '{"b": 3}', "", '{"a":1,"b":3}'),
        (ANSWER, '{"priority":"low"}', "", ANSWER),
        ("no json", '{"priority": "high"}', "", '{"priority": "high"}'),
        # Numbers stay numbers.
        ('{"stars": 4}', "5", "stars", '{"stars": 5}'),
        ('{"stars": "4"}', "5", "stars", '{"stars": "5"}'),
        ('{"a": true}', "false", "a", '{"a": false}'),
        ('{"a": [1]}', "x", "a", '{"a": "x"}'),
        # What no JSON text can hold is no label: half a character, a number without an end.
        (ANSWER, '{"category": "\\ud800"}', "", None),
        ("no json", '{"category": "\\ud800"}', "", None),
        ("no json", '{"\\udfff": "x"}', "", None),
        (ANSWER, '{"category": NaN}', "", None),
        (ANSWER, '{"category": 1e999}', "", None),
        ('{"stars": 4}', "NaN", "stars", None),
        ('{"stars": 4}', "-1e999", "stars", None),
        ('{"stars": NaN, "a": 1}', '{"a": 2}', "", None),
        ('{"name": "J\xf6rg"}', "Zo\xeb", "name", '{"name": "Zo\xeb"}'),
    ],
)
def test_a_label_is_applied(answer: str, label: str, field: str, target: str | None) -> None:
    assert apply_label(answer, label, field) == target


def test_what_is_nested_too_deeply_ends_no_selection() -> None:
    assert apply_label('{"stars": 4}', "[" * 4000, "stars") == json.dumps({"stars": "[" * 4000})
    for depth in range(900, 1000):  # at some depth what was read cannot be written again
        deep = f'{{"a": {"[" * depth}{"]" * depth}}}'
        more = f'{deep[:-1]}, "b": 1}}'
        assert apply_label(deep, more, "") in (None, more)


@pytest.mark.parametrize(
    ("labels", "feedback", "expected"),
    [
        (["correction", "label"], [], LeftOut.UNLABELLED),
        (["label"], [said(business_value=2.0)], LeftOut.UNLABELLED),
        (["label"], [said(label="billing")], LeftOut.LABEL_UNUSABLE),
        (["label"], [said(label="bug")], Labelled(ANSWER, None, LabelSource.LABEL)),
        (
            ["correction", "label"],
            [said(1, correction="better"), said(2, label="bug")],
            Labelled("better", ANSWER, LabelSource.CORRECTION),
        ),
        (
            ["label", "correction"],
            [said(1, correction="better"), said(2, label="bug")],
            Labelled(ANSWER, None, LabelSource.LABEL),
        ),
        # Of each kind the newest counts.
        (
            ["correction"],
            [said(1, correction="old"), said(2, correction="new"), said(3, score=1.0)],
            Labelled("new", ANSWER, LabelSource.CORRECTION),
        ),
        # An unusable label leaves the next source its turn.
        (
            ["label", "score"],
            [said(1, label="billing"), said(2, score=0.95)],
            Labelled(ANSWER, None, LabelSource.SCORE),
        ),
        (["score"], [said(score=0.89)], LeftOut.UNLABELLED),
        # A blank correction says nothing; only space apart is no other answer.
        (["correction"], [said(correction="  ")], LeftOut.UNLABELLED),
        (
            ["correction"],
            [said(correction=ANSWER.replace(" ", "\n"))],
            Labelled(ANSWER.replace(" ", "\n"), None, LabelSource.CORRECTION),
        ),
    ],
)
def test_the_most_trusted_source_decides(
    labels: list[str], feedback: list[FeedbackRow], expected: Labelled | LeftOut
) -> None:
    policy = DatasetPolicy.of({"labels": labels})
    assert label_of(ANSWER, feedback, policy) == expected


@pytest.mark.parametrize(
    ("labels", "feedback", "expected"),
    [
        (["score"], [said(score=1.0)], LeftOut.CUT_OFF),
        (["score"], [said(score=0.1)], LeftOut.UNLABELLED),
        # Somebody said all of what is right.
        (["correction"], [said(correction="all")], Labelled("all", ANSWER, LabelSource.CORRECTION)),
        (
            ["score", "label"],
            [said(1, score=1.0), said(2, label="bug")],
            Labelled(ANSWER, None, LabelSource.LABEL),
        ),
    ],
)
def test_an_answer_that_was_cut_off_is_right_by_no_score(
    labels: list[str], feedback: list[FeedbackRow], expected: Labelled | LeftOut
) -> None:
    policy = DatasetPolicy.of({"labels": labels})
    assert label_of(ANSWER, feedback, policy, cut_off=True) == expected


def test_a_teacher_is_left_what_nobody_labelled() -> None:
    policy = DatasetPolicy.of(
        {"labels": ["label", "teacher"], "teacher": {"url": "http://t/v1", "model": "m"}}
    )
    assert label_of(ANSWER, [], policy) == Labelled("", None, LabelSource.TEACHER)
    assert label_of(ANSWER, [said(label="bug")], policy) == Labelled(
        ANSWER, None, LabelSource.LABEL
    )
