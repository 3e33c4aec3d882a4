"""Texts as vectors whose cosine says how alike the texts are.

The one built in hashes words and n-grams of letters: it knows spelling, not meaning. It is here
because it needs no model, gives the same vectors everywhere, and takes a tenth of a millisecond.
How far that goes is measured in docs/caching.md.
"""

from __future__ import annotations

import functools
import itertools
import re
import unicodedata
import zlib
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["Embedder", "HashedNgrams", "Vectors"]

Vectors = npt.NDArray[np.float32]

_WORD = re.compile(r"\w+")
# Odd, so that multiplication permutes the numbers below 2^64 (Knuth, vol. 3, 6.4).
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


class Embedder(Protocol):
    """Turns texts into vectors. Pure and quick: the pump calls it between requests."""

    @property
    def name(self) -> str:
        """Names the vectors: a threshold found with one name says nothing of another's."""
        ...

    @property
    def dimensions(self) -> int:
        """The length of a vector."""
        ...

    def embed(self, texts: Sequence[str]) -> Vectors:
        """One row per text, of length 1, or 0 where the text says nothing."""
        ...


class HashedNgrams:
    """Counts of words, pairs of words and n-grams of letters, hashed into a fixed length.

    The sign of each feature comes from its hash too, so that collisions cancel out on average
    (Weinberger et al., "Feature Hashing for Large Scale Multitask Learning", 2009). Repeats count
    by their square root.

    Args:
        dimensions: Length of a vector; a power of two.
        letters: Lengths of the n-grams of bytes in UTF-8.
        words_weight: What a word or a pair of words weighs against an n-gram.
    """

    def __init__(
        self,
        dimensions: int = 1024,
        letters: Sequence[int] = (3, 4, 5),
        words_weight: float = 2.0,
    ) -> None:
        if dimensions & (dimensions - 1) or dimensions < 2:
            raise ValueError(f"dimensions must be a power of two, not {dimensions}")
        self._dimensions = dimensions
        self._shift = np.uint64(64 - dimensions.bit_length() + 1)
        self._letters = tuple(letters)
        self._words_weight = words_weight

    @property
    def name(self) -> str:
        """See `Embedder`."""
        letters = "".join(map(str, self._letters))
        return f"ngrams-{self._dimensions}-{letters}-{self._words_weight:g}"

    @property
    def dimensions(self) -> int:
        """See `Embedder`."""
        return self._dimensions

    def embed(self, texts: Sequence[str]) -> Vectors:
        """See `Embedder`."""
        rows = np.zeros((len(texts), self._dimensions), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            self._fill(row, _normalised(text))
        return rows

    def _fill(self, row: Vectors, text: str) -> None:
        words = _WORD.findall(text)
        if not words:
            return
        hashes, weights = self._ngrams(text)
        named = _word_hashes(words)
        hashes = np.concatenate([hashes, named])
        weights = np.concatenate([weights, np.full(len(named), self._words_weight)])
        different, index, counts = np.unique(hashes, return_index=True, return_counts=True)
        # The low bit gives the sign and the high bits the place: they do not depend on each other.
        signs = (different & np.uint64(1)).astype(np.float64) * 2 - 1
        values = signs * weights[index] * np.sqrt(counts)
        places = (different >> self._shift).astype(np.intp)
        row[:] = np.bincount(places, weights=values, minlength=self._dimensions)
        length = float(np.linalg.norm(row))
        if length:
            row /= length

    def _ngrams(self, text: str) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.float64]]:
        # A space on either side: the letters at a word's ends are features of their own.
        letters = np.frombuffer(f" {text} ".encode(), dtype=np.uint8).astype(np.uint64)
        found = []
        for n in self._letters:
            if len(letters) < n:
                continue
            rolled = np.full(len(letters) - n + 1, n, dtype=np.uint64)
            for at in range(n):
                rolled = _mixed(rolled + letters[at : len(letters) - n + 1 + at])
            found.append(rolled)
        hashes = np.concatenate(found) if found else np.empty(0, dtype=np.uint64)
        return hashes, np.ones(len(hashes))


def _normalised(text: str) -> str:
    """Letter case, compatibility forms and runs of white space do not count."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _word_hashes(words: Sequence[str]) -> npt.NDArray[np.uint64]:
    single = [_crc(word) for word in words]
    pairs = [first * 31 + second + (1 << 40) for first, second in itertools.pairwise(single)]
    return _mixed(_mixed(np.array([*single, *pairs], dtype=np.uint64)))


@functools.lru_cache(maxsize=16_384)
def _crc(word: str) -> int:
    return zlib.crc32(word.encode())


def _mixed(numbers: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    product = numbers * _MULTIPLIER
    mixed: npt.NDArray[np.uint64] = product ^ (product >> np.uint64(29))
    return mixed
