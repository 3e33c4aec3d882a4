"""When an answer's value is what a label says: drift and retraining have to mean the same. Pure."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["same"]


def same(one: Any, other: Any) -> bool:
    """Whether two JSON values are equal; texts but for case and white space.

    What is nested too deeply to be written is equal to nothing.
    """
    try:
        return _plain(one) == _plain(other)
    except RecursionError:
        return False


def _plain(value: Any) -> str:
    if isinstance(value, str):
        return " ".join(value.casefold().split())
    return json.dumps(value, sort_keys=True)
