"""Suites from files: every fault is named with file, line and field, and what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from penstock_retrain.dataset.examples import Example as Row
from penstock_retrain.dataset.examples import Pool, Split
from penstock_retrain.dataset.rows import Message
from penstock_retrain.dataset.writing import Lineage, write_dataset
from penstock_retrain.gates.errors import SuiteError
from penstock_retrain.gates.loading import DEFAULT, load_suite, parse_suite
from tests.unit.retrain.gates.gate_places import SUITE, write_suite

TRIAGE = Path(__file__).parents[4] / "examples" / "triage" / "gates"

HEAD = "suite: s\nexamples: {file: e.jsonl}\n"


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ("suite: s\nrules: [", "s.yaml:2: no YAML"),
        ("- a\n", "s.yaml:1: no suite: begin with `suite: NAME`"),
        (HEAD, "s.yaml:1: rules: it is missing"),
        (
            HEAD + "rules:\n  - {metric: exact_match, atleast: 1}\n",
            "s.yaml:4: rules.0.atleast: it is",
        ),
        (
            HEAD + "rules: [{metric: f1, at_least: 0.5}]",
            "s.yaml:3: rules.0.metric: there is no metric",
        ),
        (
            HEAD + "rules: [{metric: exact_macth, at_least: 0.5}]",
            "s.yaml:3: rules.0.metric: there is no metric 'exact_macth'; did you mean exact_match?",
        ),
        (
            HEAD + "rules:\n- {metric: exact_match, at_least: 0.5, slice: typo}",
            "s.yaml:4: rules.0.slice: there is no slice 'typo'; there are all",
        ),
        (HEAD + "rules:\n- {metric: exact_match}", "s.yaml:4: rules.0: name one of at_least"),
        (
            HEAD + "rules:\n- {metric: exact_match, at_least: 1}",
            "s.yaml:4: rules.0.at_least: a share that examples can show lies between",
        ),
        (
            HEAD + "rules:\n- {metric: exact_match, at_most: 0.5}",
            "s.yaml:4: rules.0.at_most: more is better here; write at_least",
        ),
        (
            HEAD + "rules:\n- {metric: exact_match, no_worse_by: 0, than: original}",
            "s.yaml:4: rules.0.than: only a variant has an original",
        ),
        (
            HEAD + "rules:\n- {metric: exact_match, at_least: 0.5, within: 3}",
            "s.yaml:4: rules.0.within: exact_match is no amount",
        ),
        (
            HEAD + "rules:\n- {metric: latency_s, within: 3, at_least: 0.9}",
            "s.yaml:4: rules.0.metric: latency_s needs answers.batch: 1",
        ),
        (
            HEAD + "rules:\n- {metric: cost_microusd, at_most: 3}",
            "s.yaml:4: rules.0: cost_microusd has no upper end: name one of within",
        ),
        (
            HEAD + "rules:\n- {metric: cost_microusd, at_most: 3, cap: 9, options: {input: 1}}",
            "s.yaml:4: rules.0.options.input: cost_microusd takes input_microusd, output_microusd",
        ),
        (
            HEAD + "slices: {all: {pool: drifted}}\nrules:\n- {metric: token_f1, at_least: 0.5}",
            "s.yaml:3: slices.all: all examples are a slice of that name",
        ),
        (
            HEAD + "slices: {a: {task: x}}\nrules:\n- {metric: token_f1, at_least: 0.5}",
            "s.yaml:3: slices.a.task: write pool, label.NAME or expected.FIELD",
        ),
        (
            "suite: s\nexamples: {file: e, fields: {ticket: id}}\nrules: []",
            "s.yaml:2: examples: fields.ticket: there are id, text",
        ),
        (
            HEAD + "schema: {type: objekt}\nrules:\n- {metric: json_valid, at_least: 0.5}",
            "s.yaml:3: schema: it is no JSON Schema: 'objekt' is not valid",
        ),
        ("suite: s\nexamples: {}\nrules: []", "s.yaml:2: examples: name either a file or a split"),
    ],
)
def test_a_documents_faults(document: str, told: str) -> None:
    with pytest.raises(SuiteError) as caught:
        parse_suite(document, "s.yaml")
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "sums.jsonl:2: it is no JSON, at column 2"),
        ("[]", "sums.jsonl:2: it is no JSON object"),
        ('{"text": "a", "prompt": "b"}', "sums.jsonl:2: name one of text"),
        ('{"text": "a", "answer": "b"}', "sums.jsonl:2: answer: it is not known"),
        ('{"messages": [{"role": "me", "content": "b"}]}', "sums.jsonl:2: messages.0.role: String"),
        ('{"text": "a", "id": "s0"}', "sums.jsonl:2: id: an earlier line has the same"),
        ('{"text": "a", "schema": {"type": 1}}', "sums.jsonl:2: schema: it is no JSON Schema"),
        ('{"text": "a", "forbidden": [""]}', "sums.jsonl:2: forbidden: an empty text"),
    ],
)
def test_a_lines_faults(tmp_path: Path, line: str, told: str) -> None:
    path = write_suite(tmp_path, count=1)
    with (tmp_path / "sums.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(SuiteError) as caught:
        load_suite(path)
    assert told in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match=r"none\.yaml cannot be read"):
        load_suite(tmp_path / "none.yaml")
    (tmp_path / "s.yaml").write_text(HEAD + "rules: [{metric: token_f1, at_least: 0.5}]")
    with pytest.raises(SuiteError, match=r"e\.jsonl cannot be read"):
        load_suite(tmp_path / "s.yaml")
    (tmp_path / "e.jsonl").write_text("")
    with pytest.raises(SuiteError, match="there are none"):
        load_suite(tmp_path / "s.yaml")


def test_slices(tmp_path: Path) -> None:
    loaded = load_suite(write_suite(tmp_path))
    assert len(loaded.examples) == 250
    assert len(loaded.sliced("all")) == 200
    assert [e.id for e in loaded.sliced("even")][:3] == ["s0", "s2", "s4"]
    assert {e.variant for e in loaded.sliced("injected")} == {"injected"}
    assert len(loaded.sliced("injected")) == 50
    other = load_suite(write_suite(tmp_path / "other", SUITE.replace("0.8", "0.81")))
    assert loaded.digest != other.digest
    assert loaded.digest == load_suite(tmp_path / "sums.yaml").digest


def test_a_files_own_names(tmp_path: Path) -> None:
    (tmp_path / "e.jsonl").write_text(
        "".join(json.dumps({"nr": f"{n}", "q": f"q{n}", "a": {"x": n}}) + "\n" for n in range(9))
    )
    text = """
suite: s
examples: {file: e.jsonl, fields: {id: nr, text: q, expected: a}, count: 4}
schema: {type: object}
slices: {two: {expected.x: "2"}}
rules: [{metric: json_valid, at_least: 0.5}]
"""
    (tmp_path / "s.yaml").write_text(text)
    loaded = load_suite(tmp_path / "s.yaml")
    assert [(e.id, e.said) for e in loaded.examples] == [(f"{n}", f"q{n}") for n in range(4)]
    assert [e.id for e in loaded.sliced("two")] == ["2"]
    assert loaded.examples[0].schema == {"type": "object"}
    (tmp_path / "s.yaml").write_text(text.replace("text: q", "text: question"))
    with pytest.raises(SuiteError, match=r"e\.jsonl:1: question: it is missing"):
        load_suite(tmp_path / "s.yaml")


def test_a_datasets_golden_rows_and_its_drifted_ones(tmp_path: Path) -> None:
    def row(number: int, pool: Pool) -> Row:
        turns = (Message("user", f"q{number}"),)
        labels = {"task": "refund"}
        return Row(
            f"r{number}", f"g{number}", turns, "", '{"a": 1}', None, "label", labels, 0, pool
        )

    rows = [row(n, Pool.DRIFTED if n % 2 else Pool.RECENT) for n in range(6)]
    write_dataset(tmp_path / "d", {Split.GOLDEN: rows}, Lineage({}, {}, {}, {}))
    text = """
suite: s
examples: {split: golden}
slices: {drifted: {pool: drifted}, refund: {label.task: refund}}
rules: [{metric: exact_match, no_worse_by: 0.1}]
"""
    (tmp_path / "s.yaml").write_text(text)
    loaded = load_suite(tmp_path / "s.yaml", tmp_path / "d")
    assert [e.id for e in loaded.sliced("drifted")] == ["r1", "r3", "r5"]
    assert len(loaded.sliced("refund")) == 6
    assert loaded.examples[0].expected == {"a": 1}
    assert load_suite(DEFAULT, tmp_path / "d").suite.suite == "default"
    with pytest.raises(SuiteError, match="name one with --dataset"):
        load_suite(tmp_path / "s.yaml")
    with pytest.raises(SuiteError, match="cannot be read"):
        load_suite(tmp_path / "s.yaml", tmp_path / "none")


def test_the_examples_suites_are_whole() -> None:
    paths = sorted(TRIAGE.glob("*.yaml"))
    assert [path.stem for path in paths] == ["cost", "golden", "robustness"]
    for path in paths:
        loaded = load_suite(path)
        for rule in loaded.suite.rules:
            assert loaded.sliced(rule.slice), (path.stem, rule.slice)
