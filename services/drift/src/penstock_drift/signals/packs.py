"""Versioned packs of words and regular expressions: TOML files beside this module. Pure.

Whoever changes one raises the pack's version: findings across two versions compare two measures.
Precision and recall of each pack are measured on the labelled texts of its tests.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import tomllib
from collections.abc import Set as AbstractSet
from importlib import resources

__all__ = ["Pack", "Pattern", "pack"]

# As people type them, and as word processors do.
_QUOTES = str.maketrans(dict.fromkeys("\N{RIGHT SINGLE QUOTATION MARK}`\N{ACUTE ACCENT}", "'"))


@dataclasses.dataclass(frozen=True)
class Pattern:
    """One way to say it.

    Attributes:
        expression: Where it is said.
        weight: How much a match says, in (0, 1].
        needs: Each match holds one of these words; empty where there is no such set.
    """

    expression: re.Pattern[str]
    weight: float
    needs: frozenset[str]


@dataclasses.dataclass(frozen=True)
class Pack:
    """Words and patterns that mean the same thing.

    Attributes:
        name: What they find.
        version: Rises with every change.
        reach: Characters of a text that are looked at.
        words: Each of them says it alone, with the weight 1.
        patterns: Those that take more than a word.
    """

    name: str
    version: int
    reach: int
    words: frozenset[str]
    patterns: tuple[Pattern, ...]

    def found_in(self, text: str, words: AbstractSet[str]) -> bool:
        """Whether a text says it in any way.

        Args:
            text: The text.
            words: Its words in lower case, or those of a longer text that it is a part of.
        """
        return self.score(text, words) > 0

    def score(self, text: str, words: AbstractSet[str]) -> float:
        """In [0, 1]: one less the product of (1 - weight) over the patterns that match.

        As if each were an independent witness that is right with its weight's probability.
        """
        if not self.words.isdisjoint(words):
            return 1.0
        likely = [p for p in self.patterns if not (p.needs and p.needs.isdisjoint(words))]
        if not likely:
            return 0.0
        start = text[: self.reach].translate(_QUOTES)
        innocent = 1.0
        for pattern in likely:
            if pattern.expression.search(start):
                innocent *= 1 - pattern.weight
        return 1 - innocent


@functools.cache
def pack(name: str) -> Pack:
    """The pack of that name. A pattern has to run in time that grows with the text alone."""
    text = (resources.files(__package__) / f"{name}.toml").read_text(encoding="utf-8")
    written = tomllib.loads(text)
    return Pack(
        name=name,
        version=written["version"],
        reach=written["reach"],
        words=frozenset(written.get("words", ())),
        patterns=tuple(
            Pattern(
                expression=re.compile(each["expression"], re.IGNORECASE),
                weight=float(each["weight"]),
                needs=frozenset(each.get("needs", ())),
            )
            for each in written["patterns"]
        ),
    )
