"""What an owner leaves beside its position, in the metadata of the committed offset. Pure.

The broker takes 4,096 characters by default and a longer string is fatal to a transactional
producer, so the size is bounded by construction: whatever is done within `SPAN` offsets above the
position fits, beside `MAX_NOTES` notes on work that was begun.
"""

from __future__ import annotations

import base64
import dataclasses
import secrets
import zlib
from collections.abc import Iterator, Mapping

__all__ = ["MAX_CHARS", "MAX_NOTES", "SPAN", "Note", "Progress", "decode", "encode", "new_owner"]

MAX_CHARS = 4096  # the broker's default for offset.metadata.max.bytes
SPAN = 12_288  # offsets above the position: one bit each makes 2,048 characters
MAX_NOTES = 384  # at most three bytes each
_MAX_DEATHS = 15
_MAX_PRESUMED_DEAD = 8
_MAX_OWNER = 2**32 - 1
_PREFIX = "p2:"
_PREFIX_WITHOUT_OWNERS = "p1:"

_CLEAN = 1


@dataclasses.dataclass(frozen=True, slots=True)
class Note:
    """What is known of a record that has not ended.

    Attributes:
        deaths: How often an owner or an engine died while it had the record, up to 15.
        begun: Whether the owner who wrote this had begun with it.
    """

    deaths: int
    begun: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Progress:
    """The state of a partition above its position.

    Attributes:
        done: Bit i is set when the record at `position + i` has ended.
        notes: By offset relative to the position: records begun, or with deaths behind them.
        clean: Whether the last owner let go in order.
        takeovers: Times in a row that the partition was taken from a dead owner who had
            committed nothing.
        halted_at_ms: When the partition stopped at a limit, in milliseconds since 1970; 0 where
            it flows.
        owner: Who wrote this, by the number that it drew; 0 where unknown.
        presumed_dead: Owners that were counted as dead, the last one last. One that comes back
            shows that its death was none: it had lost the partition, no more.
    """

    done: int = 0
    notes: Mapping[int, Note] = dataclasses.field(default_factory=dict)
    clean: bool = True
    takeovers: int = 0
    halted_at_ms: int = 0
    owner: int = 0
    presumed_dead: tuple[int, ...] = ()


def new_owner() -> int:
    """A number for one who will own partitions, which no other one has drawn, but for bad luck."""
    return secrets.randbelow(_MAX_OWNER) + 1


def encode(progress: Progress) -> str:
    """The metadata string, at most `MAX_CHARS` long.

    Notes beyond `MAX_NOTES` are left out, those with the fewest deaths first: their counts begin
    again if the owner dies. Of those presumed dead the last eight are kept.

    Raises:
        ValueError: A done record lies beyond `SPAN`.
    """
    if progress.done >> SPAN:
        raise ValueError(f"records are done more than {SPAN} offsets above the position")
    raw = bytearray()
    notes = _kept(progress.notes)
    dead = progress.presumed_dead[-_MAX_PRESUMED_DEAD:]
    for number in (
        _CLEAN if progress.clean else 0,
        progress.takeovers,
        progress.halted_at_ms,
        progress.owner,
        len(dead),
        *dead,
        len(notes),
    ):
        _put(raw, number)
    last = 0
    for offset, note in notes:
        _put(raw, offset - last)
        raw.append(min(note.deaths, _MAX_DEATHS) << 1 | note.begun)
        last = offset
    raw += progress.done.to_bytes((progress.done.bit_length() + 7) // 8, "little")
    return _PREFIX + base64.b64encode(zlib.compress(raw, 1)).decode()


def decode(metadata: str) -> Progress:
    """What `encode` wrote; an empty start for anything else, such as another tool's commit."""
    if not metadata.startswith((_PREFIX, _PREFIX_WITHOUT_OWNERS)):
        return Progress()
    try:
        raw = zlib.decompress(base64.b64decode(metadata[len(_PREFIX) :], validate=True))
        numbers = iter(raw)
        flags, takeovers, halted_at_ms = (_take(numbers) for _ in range(3))
        owner, dead = 0, tuple[int, ...]()
        if metadata.startswith(_PREFIX):
            owner = _take(numbers)
            dead = tuple(_take(numbers) for _ in range(_take(numbers)))
        notes: dict[int, Note] = {}
        offset = 0
        for _ in range(_take(numbers)):
            offset += _take(numbers)
            packed = next(numbers)
            notes[offset] = Note(packed >> 1, bool(packed & 1))
        done = int.from_bytes(bytes(numbers), "little")
    except (ValueError, zlib.error, StopIteration, RuntimeError):
        return Progress()
    return Progress(done, notes, bool(flags & _CLEAN), takeovers, halted_at_ms, owner, dead)


def _kept(notes: Mapping[int, Note]) -> list[tuple[int, Note]]:
    # Beyond the span a distance may take more than two bytes.
    kept = [(offset, note) for offset, note in notes.items() if 0 <= offset < SPAN]
    if len(kept) > MAX_NOTES:
        kept.sort(key=lambda item: (-item[1].deaths, item[0]))
        del kept[MAX_NOTES:]
    return sorted(kept)


def _put(raw: bytearray, number: int) -> None:
    while number > 0x7F:
        raw.append(number & 0x7F | 0x80)
        number >>= 7
    raw.append(number)


def _take(numbers: Iterator[int]) -> int:
    value = shift = 0
    while True:
        byte = next(numbers)
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value
        shift += 7
