"""Keeps frequent classes from drowning the others. Pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping

from penstock_retrain.dataset.examples import Example

__all__ = ["class_of", "most_per_class"]


def class_of(example: Example, by: str) -> str:
    """An example's class; see `Balance.by`. Empty where it has none: that is a class too."""
    what, _, name = by.partition(".")
    if what == "label":
        return example.labels.get(name, "")
    if not name:
        return " ".join(example.target.split())
    try:
        found = json.loads(example.target)
    except (ValueError, RecursionError):
        return ""
    value = found.get(name, "") if isinstance(found, dict) else ""
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def most_per_class(counts: Mapping[str, int], max_share: float) -> int:
    """How many rows a class may keep so that none has more than its share of what is kept.

    Where there are too few classes for that, the smallest one's count: as even as can be.
    """
    if not counts:
        return 0
    # A cap c is allowed while c <= max_share * sum(min(n, c)); the right side grows ever slower.
    sizes = Counter(counts.values())
    if max_share * len(counts) < 1:
        return min(counts.values())
    low, high = min(counts.values()), max(counts.values())
    while low < high:
        middle = (low + high + 1) // 2
        kept = sum(min(size, middle) * times for size, times in sizes.items())
        if middle <= max_share * kept:
            low = middle
        else:
            high = middle - 1
    return low
