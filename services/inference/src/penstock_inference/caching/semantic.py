"""The semantic cache: a question much like one that was answered gets its answer. Pure.

Off unless an operator turns it on with a threshold that was calibrated on pairs of their own
(`penstock cache calibrate`). Only the last user turn is compared by meaning; everything else has
to be the same, and the tenant is part of everything else.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import OrderedDict

import numpy as np
import numpy.typing as npt

from penstock.v1 import engine_service_pb2
from penstock_inference.caching.embedding import Embedder, Vectors
from penstock_inference.caching.exact import ENTRY_OVERHEAD_BYTES, Hit, hit_of, is_complete
from penstock_inference.caching.keys import Question

__all__ = ["SemanticCache", "SemanticKey"]

FLOAT_BYTES = 4


class SemanticKey:
    """A question on its way through the cache; its vector is made when it is first needed."""

    __slots__ = ("partition", "text", "vector")

    def __init__(self, question: Question) -> None:
        self.partition = question.partition
        self.text = question.text
        self.vector: Vectors | None = None


@dataclasses.dataclass(slots=True)
class _Entry:
    partition: bytes
    kept_s: float
    answer: bytes


class SemanticCache:
    """Answers by likeness, least recently used first out. Not for use from several threads.

    A lookup reads one partition's vectors: `max_rows` bounds its time, about 0.04 ms for 1,000
    vectors of 1,024 on an idle core, after 0.1 ms for the question's own.

    Args:
        embedder: Makes the vectors.
        threshold: The least cosine that counts as the same question; above 0, at most 1.
        max_bytes: Bound of all entries with their vectors.
        ttl_s: How long an answer stands.
        max_rows: Bound of the entries that one lookup compares with.
    """

    def __init__(
        self,
        embedder: Embedder,
        threshold: float,
        max_bytes: int,
        ttl_s: float,
        max_rows: int = 1000,
    ) -> None:
        if not 0 < threshold <= 1:
            raise ValueError(f"the threshold must be above 0 and at most 1, not {threshold}")
        self._embedder = embedder
        self._threshold = threshold
        self._max_bytes = max_bytes
        self._ttl_s = ttl_s
        self._max_rows = max_rows
        self._ids = itertools.count()
        # All entries by last use, and each partition's in the same order.
        self._entries: OrderedDict[int, _Entry] = OrderedDict()
        self._partitions: dict[bytes, _Rows] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def size_bytes(self) -> int:
        """What the entries and their vectors take."""
        return self._bytes

    def get(self, key: SemanticKey, now_s: float) -> Hit | None:
        """The answer to the most similar question, if it is similar enough and still stands.

        Args:
            key: The question; its vector is kept in it for `put`.
            now_s: The present by a clock that never goes back, the same as given to `put`.
        """
        vector = self._vector(key)
        # Dropping what is too old may empty the partition, so it is looked up every time.
        while (rows := self._partitions.get(key.partition)) is not None:
            entry_id, similarity = rows.nearest(vector)
            if similarity < self._threshold:
                return None
            entry = self._entries[entry_id]
            if now_s - entry.kept_s < self._ttl_s:
                self._entries.move_to_end(entry_id)
                rows.use(entry_id)
                return hit_of(entry.answer, min(1.0, similarity))
            self._drop(entry_id)
        return None

    def put(self, key: SemanticKey, result: engine_service_pb2.WorkResult, now_s: float) -> bool:
        """Keeps a complete answer; returns whether it was kept.

        As with the exact cache, what came from a cache must not be put back.
        """
        vector = self._vector(key)
        if not is_complete(result) or not vector.any():
            return False
        answer = result.SerializeToString()
        if self._size(answer) > self._max_bytes // 8:
            return False
        rows = self._partitions.get(key.partition)
        if rows is None:
            rows = self._partitions[key.partition] = _Rows(self._embedder.dimensions)
        elif len(rows) == self._max_rows:
            self._drop(rows.least_recently_used())
        # A partition whose only entry was just dropped is not registered any more.
        self._partitions[key.partition] = rows
        entry_id = next(self._ids)
        rows.add(entry_id, vector)
        self._entries[entry_id] = _Entry(key.partition, now_s, answer)
        self._bytes += self._size(answer)
        while self._bytes > self._max_bytes:
            self._drop(next(iter(self._entries)))
        return True

    def clear(self) -> None:
        """Forgets everything."""
        self._entries.clear()
        self._partitions.clear()
        self._bytes = 0

    def _vector(self, key: SemanticKey) -> Vectors:
        if key.vector is None:
            key.vector = self._embedder.embed([key.text])[0]
        return key.vector

    def _size(self, answer: bytes) -> int:
        # Matrices grow by doubling, so a vector takes up to two rows; a partition of one entry
        # has a matrix and lists of its own.
        return 2 * self._embedder.dimensions * FLOAT_BYTES + len(answer) + 3 * ENTRY_OVERHEAD_BYTES

    def _drop(self, entry_id: int) -> None:
        entry = self._entries.pop(entry_id)
        rows = self._partitions[entry.partition]
        rows.remove(entry_id)
        if not len(rows):
            del self._partitions[entry.partition]
        self._bytes -= self._size(entry.answer)


class _Rows:
    """One partition's vectors in a matrix without holes."""

    def __init__(self, dimensions: int) -> None:
        self._matrix: npt.NDArray[np.float32] = np.empty((1, dimensions), dtype=np.float32)
        self._ids: list[int] = []
        # Entry id to its row, by last use.
        self._row_of: OrderedDict[int, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._ids)

    def nearest(self, vector: Vectors) -> tuple[int, float]:
        """The entry with the greatest cosine to a vector of length 1."""
        cosines = self._matrix[: len(self._ids)] @ vector
        row = int(cosines.argmax())
        return self._ids[row], float(cosines[row])

    def add(self, entry_id: int, vector: Vectors) -> None:
        """One more row."""
        row = len(self._ids)
        if row == len(self._matrix):
            self._resize(2 * row)
        self._matrix[row] = vector
        self._ids.append(entry_id)
        self._row_of[entry_id] = row

    def remove(self, entry_id: int) -> None:
        """The last row takes the place of the one that goes."""
        row = self._row_of.pop(entry_id)
        last_id = self._ids.pop()
        if last_id != entry_id:
            self._matrix[row] = self._matrix[len(self._ids)]
            self._ids[row] = last_id
            self._row_of[last_id] = row
        if 1 <= len(self._ids) <= len(self._matrix) // 4:
            self._resize(len(self._matrix) // 2)

    def use(self, entry_id: int) -> None:
        """Marks an entry as used just now."""
        self._row_of.move_to_end(entry_id)

    def least_recently_used(self) -> int:
        """The entry that nobody asked for the longest."""
        return next(iter(self._row_of))

    def _resize(self, rows: int) -> None:
        matrix = np.empty((rows, self._matrix.shape[1]), dtype=np.float32)
        matrix[: len(self._ids)] = self._matrix[: len(self._ids)]
        self._matrix = matrix
