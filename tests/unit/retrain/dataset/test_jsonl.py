"""OpenAI's files go in and out unchanged, and a fault is named by line and field."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_retrain.dataset.jsonl import MAX_FAULTS, Fault, Faults, Form, as_line, parse_lines

USER = {"role": "user", "content": "hi"}
ANSWER = {"role": "assistant", "content": "hello"}
OTHER = {"role": "assistant", "content": "go away"}
SFT = {"messages": [USER, ANSWER]}
PREFERENCE = {
    "input": {"messages": [USER], "tools": [], "parallel_tool_calls": True},
    "preferred_output": [ANSWER],
    "non_preferred_output": [OTHER],
}

TEXT = st.text(min_size=1).filter(lambda text: bool(text.strip()))
TURNS = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "user", "assistant"]), "content": TEXT}
    ),
    max_size=4,
)


def faults_of(lines: Sequence[bytes], form: Form | None = None) -> list[Fault]:
    try:
        parse_lines(lines, form)
    except Faults as faults:
        return faults.faults
    return []


@given(TURNS, TEXT)
def test_supervised_lines_come_back_as_they_were(turns: list[Any], answer: str) -> None:
    body = {"messages": [*turns, USER, {"role": "assistant", "content": answer}]}
    (example,) = parse_lines([json.dumps(body).encode()])
    assert json.loads(as_line(example, Form.SFT) or "") == body
    assert parse_lines([(as_line(example, Form.SFT) or "").encode()]) == [example]


@given(TURNS, TEXT, TEXT)
def test_preferences_come_back_as_they_were(turns: list[Any], good: str, bad: str) -> None:
    body = {
        **PREFERENCE,
        "input": {"messages": [*turns, USER], "tools": [], "parallel_tool_calls": True},
        "preferred_output": [{"role": "assistant", "content": good}],
        "non_preferred_output": [{"role": "assistant", "content": bad}],
    }
    line = json.dumps(body, ensure_ascii=False).encode()
    if good == bad:
        with pytest.raises(Faults):
            parse_lines([line])
        return
    (example,) = parse_lines([line])
    assert json.loads(as_line(example, Form.PREFERENCE) or "") == body


@given(st.binary(max_size=200), st.sampled_from([None, *Form]))
def test_whatever_the_bytes_are_they_are_examples_or_faults(data: bytes, form: Form | None) -> None:
    lines = data.splitlines()
    assert len(faults_of(lines, form)) > 0 or len(parse_lines(lines, form)) <= len(lines)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "messages", "input", "preferred_output", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(JSON)
def test_whatever_the_json_is(value: Any) -> None:
    for shape in (value, {"messages": value}, {**PREFERENCE, "input": value}):
        assert {fault.line for fault in faults_of([json.dumps(shape).encode()])} <= {1}


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ({}, "messages: it is missing; it must be a list of turns"),
        ({"messages": []}, "messages: it must be a list of turns"),
        ({"messages": [USER, ANSWER], "tools": []}, "tools: it is not supported"),
        ({"messages": [USER, 3]}, "messages[1]: it must be an object"),
        ({"messages": [{"role": "use", "content": "x"}]}, "messages[0].role: it must be one of"),
        ({"messages": [{"role": "user"}]}, "messages[0].content: it is missing"),
        ({"messages": [{"role": "user", "content": " "}, ANSWER]}, "messages[0].content: it is b"),
        ({"messages": [{**USER, "audio": 1}, ANSWER]}, "messages[0].audio: it is not supported"),
        ({"messages": [USER, {**ANSWER, "weight": 0}]}, "messages[1].weight: turns without"),
        ({"messages": [ANSWER, USER]}, "messages[1].role: the last turn must be"),
        ({"messages": [ANSWER]}, "messages: there must be a turn of the user"),
        ({**PREFERENCE, "input": []}, "input: it must be an object"),
        ({**PREFERENCE, "input": {"messages": [USER], "tools": [{}]}}, "input.tools: tools are"),
        ({**PREFERENCE, "preferred_output": [USER]}, "preferred_output: it must be one turn"),
        ({**PREFERENCE, "non_preferred_output": None}, "non_preferred_output: it is missing"),
        ({**PREFERENCE, "non_preferred_output": [ANSWER]}, "non_preferred_output: it is the pref"),
    ],
)
def test_a_fault_names_line_and_field(body: Any, fault: str) -> None:
    good = json.dumps(PREFERENCE if "preferred_output" in body else SFT).encode()
    with pytest.raises(Faults) as raised:
        parse_lines([good, json.dumps(body).encode()])
    assert f"line 2: {fault}" in str(raised.value)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (b"", "line 2: it is blank"),
        (b"{not json", "line 2: it is no JSON, at column"),
        (b"[]", "line 2: it is no JSON object"),
        (b'{"messages": "\xff"}', "line 2: byte 14 is no UTF-8"),
        (b"[" * 100_000, "line 2: it is nested too deeply"),
        (b'{"messages": NaN}', "line 2: it is no JSON"),
        (
            b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
            "line 2: messages[0].content: it has half a character",
        ),
    ],
)
def test_a_line_that_is_no_json(line: bytes, fault: str) -> None:
    with pytest.raises(Faults) as raised:
        parse_lines([json.dumps(SFT).encode(), line])
    assert fault in str(raised.value)


def test_all_lines_are_looked_at_and_no_text_is_told() -> None:
    secret = json.dumps({"messages": [{"role": "secret-role", "content": 3}]}).encode()
    with pytest.raises(Faults) as raised:
        parse_lines([secret] * 50)
    assert len(raised.value.faults) == MAX_FAULTS
    assert "50 lines have faults" in str(raised.value)
    assert "secret" not in str(raised.value)


def test_a_byte_order_mark_repeats_and_developers_are_taken() -> None:
    developer = {"messages": [{"role": "developer", "content": "be kind"}, USER, ANSWER]}
    lines = [b"\xef\xbb\xbf" + json.dumps(SFT).encode(), json.dumps(developer).encode()]
    first, second = parse_lines([*lines, json.dumps(SFT).encode()])
    assert second.messages[0].role == "system"
    assert first.group != second.group
    assert as_line(first, Form.PREFERENCE) is None


def test_answers_to_one_question_share_their_group() -> None:
    other = {"messages": [USER, OTHER]}
    one, two = parse_lines([json.dumps(body).encode() for body in (SFT, other)])
    assert (one.group == two.group, one.id == two.id) == (True, False)
