"""Near-duplicates among questions: MinHash finds pairs, their shingles decide. Pure.

Broder, "On the resemblance and containment of documents" (1997); the index is datasketch's. One in
a thousand pairs at the threshold is missed, and fewer above it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from penstock_retrain.dataset.policy import NearDuplicates

__all__ = ["duplicates_of", "shingles"]

PERMUTATIONS = 128
SEED = 1
MISSED = 0.001
_WORD = re.compile(r"\w+")


def shingles(text: str, words: int) -> frozenset[int]:
    """Hashes of all runs of so many words, without regard to case and punctuation.

    A text of fewer words is one shingle, and so is one without any.
    """
    found = _WORD.findall(text.casefold())
    runs = (" ".join(found[i : i + words]) for i in range(max(1, len(found) - words + 1)))
    return frozenset(_hash(run or text.strip()) for run in runs)


def duplicates_of(texts: Sequence[str], policy: NearDuplicates) -> list[int | None]:
    """For each text the earlier one that it repeats; None of those that repeat none.

    Only with texts that repeat none is compared: a chain of small changes is no duplicate of its
    beginning. Takes about 0.2 ms a text.
    """
    # Loads numpy and scipy.
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(num_perm=PERMUTATIONS, params=_bands(policy.threshold))
    kept: dict[int, frozenset[int]] = {}
    exact: dict[frozenset[int], int] = {}
    found: list[int | None] = []
    for number, text in enumerate(texts):
        mine = shingles(text, policy.shingle)
        same = exact.get(mine)
        if same is None:
            sketch = MinHash(
                num_perm=PERMUTATIONS, seed=SEED, hashfunc=_identity, scheme="affine32"
            )
            sketch.update_batch([each & 0xFFFFFFFF for each in mine])
            pairs = (other for other in index.query(sketch) if _alike(mine, kept[other], policy))
            same = min(pairs, default=None)
            if same is None:
                index.insert(number, sketch)
                kept[number] = mine
                exact[mine] = number
        found.append(same)
    return found


def _bands(threshold: float) -> tuple[int, int]:
    """Bands and rows of the index: a pair is looked at with probability 1 - (1 - s^rows)^bands.

    The most rows, so that few pairs are compared in vain, with which a pair at the threshold is
    missed with a probability of `MISSED` at most.
    """
    rows = max(
        r
        for r in range(1, PERMUTATIONS // 2 + 1)
        if r == 1 or (1 - threshold**r) ** (PERMUTATIONS // r) <= MISSED
    )
    return PERMUTATIONS // rows, rows


def _alike(one: frozenset[int], other: frozenset[int], policy: NearDuplicates) -> bool:
    shared = len(one & other)
    return shared >= policy.threshold * (len(one) + len(other) - shared)


def _hash(run: str) -> int:
    return int.from_bytes(hashlib.blake2b(run.encode(), digest_size=8).digest(), "big")


def _identity(value: int) -> int:
    return value
