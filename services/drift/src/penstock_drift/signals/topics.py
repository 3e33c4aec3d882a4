"""What texts are about: a point in a few dimensions, by a fixed random projection.

A random projection keeps distances (Johnson and Lindenstrauss, "Extensions of Lipschitz mappings
into a Hilbert space", 1984; with signs as here: Achlioptas, "Database-friendly random
projections", JCSS 66, 2003, theorem 1.1), so a shift of what texts are about moves the points'
mean. The embedder is hashed character trigrams unless another is given; it sees words and
spelling, not meaning.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from typing import Protocol

import numpy as np
import numpy.typing as npt

from penstock_drift.records.values import Kind, SignalType, Vector
from penstock_drift.signals.declared import Declaration, Origin
from penstock_drift.signals.facts import Facts

__all__ = ["DIMENSIONS", "Embedder", "HashedTrigrams", "topic_signals"]

Floats = npt.NDArray[np.float64]

DIMENSIONS = 8
# Enough to tell what a text is about.
MAX_BYTES = 2000
# Odd multipliers without structure, by which a trigram's bytes are mixed.
_MIX = (np.uint32(0x9E3779B1), np.uint32(0x85EBCA77), np.uint32(0xC2B2AE3D))
_FINAL = np.uint32(0x27D4EB2F)


class Embedder(Protocol):
    """Turns a text into a point; local, and the same point for the same text for ever."""

    @property
    def dimension(self) -> int:
        """How many numbers a point has."""
        ...

    def embed(self, text: str) -> Floats:
        """The text's point, of length 1, or all zeros where the text tells nothing."""
        ...


class HashedTrigrams:
    """Counts of trigrams of a text's bytes in bins by their hash, rooted, at length 1.

    Args:
        dimension: How many bins.
    """

    def __init__(self, dimension: int = 256) -> None:
        self._dimension = dimension

    @property
    def dimension(self) -> int:
        """See `Embedder`."""
        return self._dimension

    def embed(self, text: str) -> Floats:
        """See `Embedder`."""
        raw = text.casefold().encode("utf-8", "replace")[:MAX_BYTES]
        codes = np.frombuffer(raw, dtype=np.uint8).astype(np.uint32)
        if len(codes) < len(_MIX):
            return np.zeros(self._dimension)
        mixed = codes[:-2] * _MIX[0] ^ codes[1:-1] * _MIX[1] ^ codes[2:] * _MIX[2]
        mixed = (mixed ^ mixed >> np.uint32(15)) * _FINAL
        bins = (mixed >> np.uint32(8)) % np.uint32(self._dimension)
        # The root keeps one much used word from hiding all others.
        point = np.sqrt(np.bincount(bins, minlength=self._dimension).astype(np.float64))
        unit: Floats = point / np.linalg.norm(point)
        return unit


@functools.lru_cache(maxsize=8)
def _signs(dimension: int) -> Floats:
    """The projection: signs from a hash, since a generator's stream may change with its library."""
    needed = DIMENSIONS * dimension
    blocks = -(-needed // 256)
    digests = b"".join(hashlib.sha256(f"topics/{n}".encode()).digest() for n in range(blocks))
    bits = np.unpackbits(np.frombuffer(digests, dtype=np.uint8))[:needed]
    return bits.astype(np.float64).reshape(DIMENSIONS, dimension) * 2 - 1


def topic_signals(embedder: Embedder) -> tuple[Declaration, ...]:
    """The signals, by an embedder's points."""
    return (
        Declaration(
            "prompt_topic", SignalType.VECTOR, Kind.INPUT, "What questions are about.",
            origin=Origin.REQUEST, size=DIMENSIONS, draw=_drawn(embedder, lambda f: f.prompt),
        ),
        Declaration(
            "answer_topic", SignalType.VECTOR, Kind.OUTPUT, "What answers are about.",
            size=DIMENSIONS, draw=_drawn(embedder, lambda f: f.text),
        ),
    )  # fmt: skip


def _drawn(
    embedder: Embedder, text_of: Callable[[Facts], str | None]
) -> Callable[[Facts], Vector | None]:
    signs = _signs(embedder.dimension)

    def draw(facts: Facts) -> Vector | None:
        text = text_of(facts)
        if text is None:
            return None
        point = embedder.embed(text)
        return tuple((signs @ point).tolist()) if point.any() else None

    return draw
