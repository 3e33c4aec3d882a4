"""Answers as JSON and as words. Pure."""

from __future__ import annotations

import json
import re
from typing import Any

__all__ = ["as_text", "parsed", "words"]

_WORD = re.compile(r"\w+")


def parsed(text: str) -> Any:
    """The JSON value that a text is; None where it is none (or `null`)."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None


def words(text: str) -> list[str]:
    """Words and numbers without case; punctuation counts for nothing."""
    return _WORD.findall(text.casefold())


def as_text(expected: Any) -> str:
    """An expected answer as a model would write it."""
    return expected if isinstance(expected, str) else json.dumps(expected, ensure_ascii=False)


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")
