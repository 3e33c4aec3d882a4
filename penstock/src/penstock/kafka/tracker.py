"""Which delivered records of a partition have ended, and how far the group may commit. Pure.

Work ends in any order. The position moves over *delivered* offsets: markers of transactions and
records of aborted ones are never delivered, leave gaps, and so cannot hold it. What ended above
the position travels in the commit's metadata, so that the next owner runs again exactly what was
not committed.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Sequence
from enum import Enum
from typing import Generic, TypeVar

from penstock.kafka import progress
from penstock.kafka.progress import SPAN, Note, Progress

__all__ = ["CAREFUL_TAKEOVERS", "Batch", "Delivered", "Tracker"]

T = TypeVar("T")

# After this many dead owners in a row without a commit, each record is noted before it is begun.
CAREFUL_TAKEOVERS = 3


class Delivered(Enum):
    """What a delivery means."""

    NEW = "new"
    REPEAT = "repeat"  # delivered before, to this owner
    DONE = "done"  # ended under an earlier owner


@dataclasses.dataclass(frozen=True, slots=True)
class Batch(Generic[T]):
    """What one transaction commits.

    Attributes:
        results: The results of records that ended, in the order of their ends; may be empty.
        offsets: Where those records stand.
        next_offset: The position that the group stands at afterwards.
        metadata: What travels beside it.
        changes: How many changes of the tracker it says, of those that no result shows.
    """

    results: Sequence[T]
    offsets: Sequence[int]
    next_offset: int
    metadata: str
    changes: int


class Tracker(Generic[T]):
    """Follows one partition from a committed position on. No clock, no I/O.

    Args:
        position: The committed position.
        metadata: What the last owner left beside it.
        owner: Who owns the partition now: `progress.new_owner`, drawn once by each process. Where
            it owned the partition before and was counted as dead, it takes that back.
    """

    def __init__(self, position: int, metadata: str = "", *, owner: int = 0) -> None:
        inherited = _corrected(progress.decode(metadata), owner)
        self.position = position
        self.delivered_to = position
        self.halted_at_ms = inherited.halted_at_ms
        self._done = inherited.done  # bit i: position + i ended and is committed
        self._takeovers = 0 if inherited.clean else inherited.takeovers + 1
        self._notes = _inherited(inherited, position)
        self._owner = owner
        self._presumed_dead = inherited.presumed_dead
        if not inherited.clean:
            self._presumed_dead = (*inherited.presumed_dead, inherited.owner)
        self._order: deque[int] = deque()  # delivered here, from the lowest that may not have ended
        self._open: set[int] = set()  # delivered here and not ended
        self._begun: set[int] = set()
        self._unnoted = False
        self._ended: deque[tuple[int, T]] = deque()  # ended and not committed
        # An owner says at once that it is there: what happens to it is not a clean end.
        self._changes = 1
        self._told_changes = 0

    @property
    def dirty(self) -> bool:
        """Whether there is something to commit beside results."""
        return self._changes != self._told_changes

    def touch(self) -> None:
        """Has the next commit tell how things stand, even when nothing has ended."""
        self._changes += 1

    @property
    def careful(self) -> bool:
        """Whether owners keep dying here before they commit: begin one record at a time."""
        return self._takeovers >= CAREFUL_TAKEOVERS

    @property
    def open(self) -> int:
        """Records delivered here that have not ended."""
        return len(self._open)

    @property
    def open_from(self) -> int:
        """The lowest offset delivered here that has not ended; the next one where all have."""
        return next((each for each in self._order if each in self._open), self.delivered_to)

    @property
    def uncommitted(self) -> int:
        """Records delivered here whose end is not committed."""
        return len(self._open) + len(self._ended)

    @property
    def span(self) -> int:
        """Offsets from the position to the highest delivered one; at `SPAN` nothing fits above."""
        return self.delivered_to - self.position

    def deliver(self, offset: int) -> Delivered:
        """Notes a delivery; only what is new may be handled."""
        if offset < self.delivered_to:
            return Delivered.REPEAT
        self.delivered_to = offset + 1
        if self._done >> (offset - self.position) & 1:
            return Delivered.DONE
        self._order.append(offset)
        self._open.add(offset)
        return Delivered.NEW

    def deaths(self, offset: int) -> int:
        """How often owners or engines died while they had the record."""
        return self._notes.get(offset, 0)

    def begin(self, offset: int) -> None:
        """Notes that the work on a record has begun: if the owner dies now, it may be why."""
        self._begun.add(offset)
        self._unnoted = True

    def note_begun(self) -> None:
        """Has the next commit say what was begun, if none has yet."""
        if self._unnoted:
            self.touch()

    def let_go(self) -> None:
        """Nothing is under way any more, and nobody died."""
        self._begun.clear()

    def died(self, offset: int) -> int:
        """Notes that an engine died while it had the record; returns how often by now."""
        count = self._notes[offset] = self._notes.get(offset, 0) + 1
        self._begun.discard(offset)
        self.touch()
        return count

    def complete(self, offset: int, result: T) -> None:
        """Notes that a record has ended.

        Raises:
            ValueError: It was not delivered here or has ended already: it would get two results.
        """
        try:
            self._open.remove(offset)
        except KeyError:
            raise ValueError(f"offset {offset} is not open: it would end twice") from None
        self._begun.discard(offset)
        self._notes.pop(offset, None)
        if not self._notes:
            self._presumed_dead = ()  # nothing is left that their deaths are counted for
        self._ended.append((offset, result))

    def ready(self, limit: int, *, clean: bool = False) -> Batch[T] | None:
        """What can be committed now, at most `limit` results; None when there is nothing to say.

        Records beyond `SPAN` wait until the position comes nearer. The same is returned again
        until `committed` is called with it.

        Args:
            limit: Results at most.
            clean: The owner lets go in order, and says so even when nothing ended.
        """
        horizon = self.position + SPAN
        offsets: list[int] = []
        results: list[T] = []
        for offset, result in self._ended:
            if len(offsets) == limit:
                break
            if offset < horizon:
                offsets.append(offset)
                results.append(result)
        if not (offsets or self.dirty or clean):
            return None
        self._unnoted = False
        next_offset = self._position_after(offsets)
        state = Progress(
            done=self._done_after(offsets, next_offset),
            notes=self._notes_after(offsets, next_offset),
            clean=clean,
            takeovers=0 if offsets else self._takeovers,
            halted_at_ms=self.halted_at_ms,
            owner=self._owner,
            presumed_dead=self._presumed_dead,
        )
        return Batch(results, offsets, next_offset, progress.encode(state), self._changes)

    def committed(self, batch: Batch[T]) -> None:
        """Takes in that a batch was committed."""
        ended = set(batch.offsets)
        if ended:
            self._takeovers = 0
            # Ends are committed in their order, except for those beyond the span.
            self._ended = deque(item for item in self._ended if item[0] not in ended)
        self._done = self._done_after(batch.offsets, batch.next_offset)
        self.position = batch.next_offset
        while self._order and self._order[0] < batch.next_offset:
            self._order.popleft()
        # What changed while the commit was under way is not told yet.
        self._told_changes = batch.changes

    def _position_after(self, offsets: Sequence[int]) -> int:
        # Everything before the next delivered record that goes on has ended, gaps included.
        ended = set(offsets)
        for offset in self._order:
            if offset not in ended and not self._done >> (offset - self.position) & 1:
                return offset
        return max(self.delivered_to, self.position)

    def _done_after(self, offsets: Sequence[int], next_offset: int) -> int:
        done = self._done >> (next_offset - self.position)
        for offset in offsets:
            if offset >= next_offset:
                done |= 1 << (offset - next_offset)
        return done

    def _notes_after(self, offsets: Sequence[int], next_offset: int) -> dict[int, Note]:
        ended = set(offsets)
        return {
            offset - next_offset: Note(self._notes.get(offset, 0), offset in self._begun)
            for offset in self._notes.keys() | self._begun
            if offset >= next_offset and offset not in ended
        }


def _corrected(inherited: Progress, owner: int) -> Progress:
    """What was left, less the deaths that `owner` knows to be none: its own."""
    if not owner:
        return inherited
    clean = inherited.clean or inherited.owner == owner
    alive = sum(each == owner for each in inherited.presumed_dead)
    if not alive:
        return dataclasses.replace(inherited, clean=clean)
    return dataclasses.replace(
        inherited,
        clean=clean,
        notes={
            offset: dataclasses.replace(note, deaths=max(0, note.deaths - alive))
            for offset, note in inherited.notes.items()
        },
        takeovers=max(0, inherited.takeovers - alive),
        presumed_dead=tuple(each for each in inherited.presumed_dead if each != owner),
    )


def _inherited(inherited: Progress, position: int) -> dict[int, int]:
    """Deaths by offset, with the last owner's death counted where it did not let go in order.

    Where it had a suspect at work, only suspects are blamed: what ran beside one is innocent.
    """
    blamed = set()
    if not inherited.clean:
        begun = {offset: note.deaths for offset, note in inherited.notes.items() if note.begun}
        suspects = {offset for offset, deaths in begun.items() if deaths >= 2}
        blamed = suspects or set(begun)
    return {
        position + offset: note.deaths + (offset in blamed)
        for offset, note in inherited.notes.items()
        if note.deaths or offset in blamed
    }
