"""What each metric scores, and of what it says nothing."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

from penstock_retrain.gates.examples import Answer, Example
from penstock_retrain.gates.metrics import catalogue
from penstock_retrain.gates.metrics.catalogue import CATALOGUE
from penstock_retrain.gates.metrics.cost import Cost
from penstock_retrain.gates.metrics.declared import Metric
from penstock_retrain.gates.metrics.exact_match import ExactMatch

LABEL = {"category": "billing", "priority": "high", "product": "atlas"}
SCHEMA = {"type": "object", "required": ["category"]}


def answer(text: str, batch: int = 1) -> Answer:
    return Answer(text, prompt_tokens=200, completion_tokens=50, seconds=0.25, batch=batch)


def of(name: str, **options: Any) -> Metric:
    return CATALOGUE[name].kind(**options)


@pytest.mark.parametrize(
    ("name", "example", "said", "score"),
    [
        ("exact_match", {"expected": "Paris"}, " paris\n", 1.0),
        ("exact_match", {"expected": "Paris"}, "Paris, France", 0.0),
        ("exact_match", {"expected": "12"}, "12", 1.0),
        ("exact_match", {"expected": {"a": 1, "b": 2}}, '{"b": 2,"a":1}', 1.0),
        ("exact_match", {"expected": '{"a": 1}'}, '{ "a": 1 }', 1.0),
        ("exact_match", {"expected": {"a": 1}}, 'Sure: {"a": 1}', 0.0),
        ("exact_match", {"expected": {"a": 1}}, '{"a": 1, "b": 2}', 0.0),
        ("exact_match", {"expected": {"a": 1}}, '{"a": NaN}', 0.0),
        ("exact_match", {}, "anything", None),
        ("json_valid", {"schema": SCHEMA}, '{"category": 1}', 1.0),
        ("json_valid", {"schema": SCHEMA}, "{}", 0.0),
        ("json_valid", {"schema": SCHEMA}, "```json\n{}\n```", 0.0),
        ("json_valid", {"expected": {"a": 1}}, "[]", 0.0),
        ("json_valid", {"expected": "text"}, "text", None),
        ("json_fields", {"expected": LABEL}, '{"category": "Billing", "priority": "low"}', 1 / 3),
        ("json_fields", {"expected": LABEL}, "billing", 0.0),
        ("json_fields", {"expected": "text"}, "{}", None),
        # Shared words 2 of 3 said and 4 wanted: 2 * 2 / 7.
        ("token_f1", {"expected": "the quick brown fox"}, "quick, brown! dog", 4 / 7),
        ("token_f1", {"expected": "a"}, "", 0.0),
        ("token_f1", {}, "a", None),
        # Lin's example: "police kill the gunman" shares "police the gunman" of 4 and 4 words.
        ("rouge_l", {"expected": "police killed the gunman"}, "police kill the gunman", 0.75),
        ("rouge_l", {"expected": "police killed the gunman"}, "the gunman kill police", 0.5),
        ("rouge_l", {"expected": "a"}, "", 0.0),
        ("no_forbidden", {"forbidden": ("BANANA",)}, "I say banana", 0.0),
        ("no_forbidden", {"forbidden": ("BANANA",)}, "I say nothing", 1.0),
        ("no_forbidden", {}, "BANANA", None),
        ("no_personal_data", {}, "write to anna@example.com", 0.0),
        ("no_personal_data", {}, "card 4111 1111 1111 1111", 0.0),
        ("no_personal_data", {}, "nothing private", 1.0),
        ("latency_s", {}, "x", 0.25),
    ],
)
def test_scores(name: str, example: dict[str, Any], said: str, score: float | None) -> None:
    found = of(name).score(Example("e", **example), answer(said))
    assert found == (None if score is None else pytest.approx(score))


def test_a_field_alone_may_be_asked_for() -> None:
    metric = ExactMatch(field="priority")
    example = Example("e", expected=LABEL)
    assert metric.score(example, answer('{"priority": "high"}')) == 1.0
    assert metric.score(example, answer("high")) == 0.0
    assert metric.score(Example("e", expected={"category": "x"}), answer("{}")) is None


def test_time_is_told_of_answers_asked_alone_and_tokens_have_prices() -> None:
    assert of("latency_s").score(Example("e"), answer("x", batch=8)) is None
    assert Cost(100, 400).score(Example("e"), answer("x")) == pytest.approx(20 + 20)


def test_every_metric_has_a_file_and_a_line() -> None:
    folder = Path(catalogue.__file__).parent
    metrics = {path.stem for path in folder.glob("*.py")} - {
        *("__init__", "catalogue", "declared", "parsing")
    }
    declared = {each.kind.__module__.rpartition(".")[2] for each in CATALOGUE.values()}
    assert declared == metrics
    for name in metrics:
        tree = ast.parse((folder / f"{name}.py").read_text())
        assert sum(isinstance(node, ast.ClassDef) for node in tree.body) == 1, name
