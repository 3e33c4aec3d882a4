"""Lines of JSON end where JSON says they do."""

from __future__ import annotations

import json

import pytest

from penstock.jsonlines import split_lines


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", []),
        ("a", ["a"]),
        ("a\n", ["a"]),
        ("a\r\n\nb", ["a", "", "b"]),
    ],
)
def test_ends_of_lines_are_taken_off(text: str, lines: list[str]) -> None:
    assert split_lines(text) == lines


def test_strings_stay_whole() -> None:
    # Those that JSON lets stand as they are.
    within = "\u2028 \u2029 \x85"
    (line,) = split_lines(json.dumps(within, ensure_ascii=False) + "\n")
    assert json.loads(line) == within
