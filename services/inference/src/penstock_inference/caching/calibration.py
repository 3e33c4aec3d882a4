"""The semantic cache's threshold from labelled pairs, with a bound on its false hits. Pure.

A pair is a text and the earlier one that the cache would offer for it: the nearest. Where pairs
were drawn like that, the share of pairs above a threshold whose answers differ is the share of
hits that would be wrong, with all that a cache compares with already in it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from penstock_inference.caching.embedding import Embedder, Vectors

__all__ = [
    "Calibration",
    "Offer",
    "Trial",
    "calibrate",
    "fewest_hits",
    "nearest",
    "similarities",
    "upper_bound",
]

GROWTH = 1.1
STEPS = 10_000  # thresholds are whole multiples of 1/10,000
BLOCK = 512


@dataclasses.dataclass(frozen=True)
class Offer:
    """What the cache would offer for a text.

    Attributes:
        text: Index of the text.
        earlier: Index of the most similar one before it.
        similarity: Their cosine.
    """

    text: int
    earlier: int
    similarity: float


@dataclasses.dataclass(frozen=True)
class Trial:
    """A threshold on the pairs.

    Attributes:
        threshold: The least cosine that counts as the same.
        hits: Pairs that reach it.
        false_hits: Those of them whose answers differ.
        found: Share of all pairs with one answer that reach it; 0 where there are none.
        upper_bound: Of the rate of false hits, at the confidence that was asked for.
        holds: Whether the bound is low enough here and at every stricter threshold.
    """

    threshold: float
    hits: int
    false_hits: int
    found: float
    upper_bound: float
    holds: bool


@dataclasses.dataclass(frozen=True)
class Calibration:
    """What was found.

    Attributes:
        threshold: The least that holds; None where none does.
        trials: From the strictest on.
        pairs: How many were looked at.
        needed: The fewest hits that could show the rate, if none of them were false.
    """

    threshold: float | None
    trials: Sequence[Trial]
    pairs: int
    needed: int


def similarities(embedder: Embedder, pairs: Sequence[tuple[str, str]]) -> npt.NDArray[np.float64]:
    """The cosine of each pair."""
    first = embedder.embed([one for one, _ in pairs])
    second = embedder.embed([other for _, other in pairs])
    cosines: npt.NDArray[np.float64] = np.einsum("ij,ij->i", first, second).astype(np.float64)
    return cosines


def nearest(vectors: Vectors) -> Iterator[Offer]:
    """For each vector but the first, the one before it that is most similar."""
    for start in range(0, len(vectors), BLOCK):
        cosines = vectors[start : start + BLOCK] @ vectors[: start + BLOCK].T
        for row, of_row in enumerate(cosines):
            text = start + row
            if text:
                earlier = int(of_row[:text].argmax())
                yield Offer(text, earlier, float(of_row[earlier]))


def calibrate(
    cosines: npt.NDArray[np.float64],
    same: npt.NDArray[np.bool_],
    max_false_hit_rate: float,
    confidence: float = 0.95,
) -> Calibration:
    """The least threshold whose rate of false hits is shown to be low enough.

    Thresholds are tried from the strictest on, and the first that fails ends the search (fixed
    sequence testing: Angelopoulos et al., "Learn then Test", 2021, section 2.2). Which ones are
    tried follows from the similarities alone, never from the labels. So the chance that the
    threshold found lets more than `max_false_hit_rate` through is at most 1 - `confidence`, for
    texts like those of the pairs, however many thresholds were tried.

    Args:
        cosines: Of the pairs.
        same: Whether the answer to the one is the answer to the other.
        max_false_hit_rate: In (0, 1): the greatest share of hits that may be wrong.
        confidence: In (0, 1).
    """
    needed = fewest_hits(max_false_hit_rate, confidence)
    rounded = np.floor(np.clip(cosines, -1, 1) * STEPS) / STEPS
    order = np.argsort(-rounded, kind="stable")
    ranked, differs = rounded[order], ~same[order]
    all_same = int(same.sum())
    trials: list[Trial] = []
    holds = True
    threshold: float | None = None
    size = needed
    while size <= len(ranked):
        least = float(ranked[size - 1])
        if least <= 0:
            break
        # Pairs as similar as the last one belong to it.
        hits = int(np.count_nonzero(ranked >= least))
        false_hits = int(differs[:hits].sum())
        bound = upper_bound(false_hits, hits, confidence)
        holds = holds and bound <= max_false_hit_rate
        found = (hits - false_hits) / all_same if all_same else 0.0
        trials.append(Trial(least, hits, false_hits, found, bound, holds))
        if holds:
            threshold = least
        size = max(hits + 1, math.ceil(hits * GROWTH))
    return Calibration(threshold, trials, len(cosines), needed)


def fewest_hits(rate: float, confidence: float) -> int:
    """How many hits without a false one it takes to show that the rate is not exceeded."""
    return math.ceil(math.log(1 - confidence) / math.log1p(-rate))


def upper_bound(false_hits: int, hits: int, confidence: float) -> float:
    """The one-sided upper bound of a share (Clopper and Pearson, 1934).

    The share at which as few false hits as were seen, or fewer, would still come up with
    probability 1 - `confidence`.
    """
    if false_hits >= hits:
        return 1.0
    counts = np.arange(1, hits + 1, dtype=np.float64)
    factorials = np.concatenate([[0.0], np.cumsum(np.log(counts))])
    seen = np.arange(false_hits + 1)
    ways = factorials[hits] - factorials[seen] - factorials[hits - seen]
    low, high = false_hits / hits, 1.0
    for _ in range(60):
        share = (low + high) / 2
        logs = ways + seen * math.log(share) + (hits - seen) * math.log1p(-share)
        if np.exp(logs).sum() > 1 - confidence:
            low = share
        else:
            high = share
    return high
