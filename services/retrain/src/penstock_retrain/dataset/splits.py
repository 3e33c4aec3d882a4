"""Which side of a dataset a row is on: by its ordering key alone. Pure.

The same key falls on the same side in every dataset of every job, so no row that a model was
trained on is ever measured on, and a golden set means the same from version to version. A question
that is asked again under another key may fall on another side.
"""

from __future__ import annotations

import hashlib

from penstock_retrain.dataset.examples import Split
from penstock_retrain.dataset.policy import SplitShares

__all__ = ["priority", "split_of"]


def split_of(group: str, shares: SplitShares) -> Split:
    """The side that a group's rows are on.

    With another share of golden keys some change sides; those that were golden stay so while it
    grows.
    """
    if _uniform(group, b"golden") < shares.golden:
        return Split.GOLDEN
    # Among the rest, so that validation has its share of all.
    if _uniform(group, b"validation") < shares.validation / (1 - shares.golden):
        return Split.VALIDATION
    return Split.TRAIN


def priority(name: str, seed: int) -> float:
    """In [0, 1): which rows are taken first where there are more than are wanted."""
    return _uniform(f"{seed}/{name}", b"priority")


def _uniform(text: str, person: bytes) -> float:
    digest = hashlib.blake2b(text.encode(), digest_size=8, person=person).digest()
    return (int.from_bytes(digest, "big") >> 11) / (1 << 53)
