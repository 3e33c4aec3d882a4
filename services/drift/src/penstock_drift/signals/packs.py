"""Versioned packs of regular expressions: TOML files beside this module. Pure.

Whoever changes a pattern raises the pack's version: findings across two versions compare two
measures. Precision and recall of each pack are measured on the labelled texts of its tests.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import tomllib
from importlib import resources

__all__ = ["Pack", "pack"]

# As people type them, and as word processors do.
_QUOTES = str.maketrans(dict.fromkeys("\N{RIGHT SINGLE QUOTATION MARK}`\N{ACUTE ACCENT}", "'"))


@dataclasses.dataclass(frozen=True)
class Pack:
    """Patterns that mean the same thing.

    Attributes:
        name: What they find.
        version: Rises with every change.
        reach: Characters of a text that are looked at.
        any: Matches where one of them does.
        each: Each of them with the weight that a match has, in (0, 1].
    """

    name: str
    version: int
    reach: int
    any: re.Pattern[str]
    each: tuple[tuple[re.Pattern[str], float], ...]

    def found_in(self, text: str) -> bool:
        """Whether any pattern matches."""
        return self.any.search(text[: self.reach].translate(_QUOTES)) is not None

    def score(self, text: str) -> float:
        """In [0, 1]: one less the product of (1 - weight) over the patterns that match.

        As if each were an independent witness that is right with its weight's probability.
        """
        text = text[: self.reach].translate(_QUOTES)
        if self.any.search(text) is None:
            return 0.0
        innocent = 1.0
        for pattern, weight in self.each:
            if pattern.search(text):
                innocent *= 1 - weight
        return 1 - innocent


@functools.cache
def pack(name: str) -> Pack:
    """The pack of that name. A pattern has to run in time that grows with the text alone."""
    text = (resources.files(__package__) / f"{name}.toml").read_text(encoding="utf-8")
    written = tomllib.loads(text)
    patterns = [(p["expression"], float(p["weight"])) for p in written["patterns"]]
    return Pack(
        name=name,
        version=written["version"],
        reach=written["reach"],
        any=re.compile("|".join(f"(?:{p})" for p, _ in patterns), re.IGNORECASE),
        each=tuple((re.compile(p, re.IGNORECASE), weight) for p, weight in patterns),
    )
