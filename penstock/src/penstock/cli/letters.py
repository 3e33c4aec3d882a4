"""The dlq as people work with it: which letters there are, and what replaying one writes. Pure."""

from __future__ import annotations

import dataclasses
import datetime as dt
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from penstock.cli.run import CliError
from penstock.codec import decode, encode
from penstock.errors import InvalidRequest
from penstock.kafka.dlq import REPLAYED_FROM, Letter, NotALetter, original_headers
from penstock.records import Outgoing, Record
from penstock.v1 import admitted_pb2

__all__ = ["Replay", "Shelf", "Wanted", "again_id", "as_json", "plan"]

NOTE = "penstock-note"
NOTE_LETTER = "penstock-letter"
NOTE_REQUEST = "penstock-request-id"
LONGEST_TIMEOUT_S = 86_400.0
# Only one service reads these, or an id keeps the record from counting twice; a second record on
# any other topic would be a second answer, or a second signal, to somebody who has the first.
AS_IT_WAS = ("requests", "usage")

_AGAIN = re.compile(r"\+r(\d+)$")


@dataclasses.dataclass(frozen=True)
class Wanted:
    """Which letters are meant; unset fields do not restrict.

    Attributes:
        service: Who gave the record up.
        reason: The stable code.
        tenant: Whose request it was.
        since: Not older, UTC.
    """

    service: str | None = None
    reason: str | None = None
    tenant: str | None = None
    since: dt.datetime | None = None

    def __call__(self, letter: Letter) -> bool:
        """Whether a letter is among them."""
        return (
            self.service in (None, letter.service)
            and self.reason in (None, letter.reason)
            and self.tenant in (None, letter.tenant)
            and (self.since is None or letter.record.timestamp_ms >= self.since.timestamp() * 1000)
        )


class Shelf:
    """Takes the records of `dlq` in, in order.

    Args:
        wanted: Which letters to keep.
        with_values: Whether their values are kept too.

    Attributes:
        letters: Those kept, by id, oldest first.
        replays: The ids of the requests that letters were replayed as, by letter; an id is empty
            where only the reader of the topic gives it.
        strangers: Records that are neither letters nor notes of ours.
    """

    def __init__(self, wanted: Callable[[Letter], bool], *, with_values: bool) -> None:
        self.letters: dict[str, Letter] = {}
        self.replays: dict[str, list[str]] = defaultdict(list)
        self.strangers = 0
        self._wanted = wanted
        self._with_values = with_values

    def take(self, record: Record) -> None:
        """Takes one record in."""
        if record.header(NOTE) == "replayed":
            letter_id = record.header(NOTE_LETTER) or ""
            self.replays[letter_id].append(record.header(NOTE_REQUEST) or "")
            return
        try:
            letter = Letter.of(record)
        except NotALetter:
            self.strangers += 1
            return
        if self._wanted(letter):
            if not self._with_values:
                letter = dataclasses.replace(letter, record=dataclasses.replace(record, value=None))
            self.letters[letter.letter_id] = letter


@dataclasses.dataclass(frozen=True)
class Replay:
    """What replaying one letter writes, in one transaction.

    Attributes:
        letter: The letter.
        request_id: The request's new id; empty where only the reader of the topic gives it.
        records: The record on its topic, and the note on the dlq.
    """

    letter: Letter
    request_id: str
    records: Sequence[Outgoing]


def plan(
    letter: Letter,
    *,
    prefix: str,
    taken: Iterable[str],
    now: dt.datetime,
    timeout_s: float | None,
) -> Replay:
    """What replaying a letter writes.

    Args:
        letter: The letter, with its value.
        prefix: What topics' names begin with.
        taken: Ids that replays have already.
        now: The present, UTC.
        timeout_s: How long the request may take; as long as before when None.

    Raises:
        CliError: It cannot be replayed; says why and what else to do.
    """
    topic = letter.origin.topic.removeprefix(f"{prefix}.")
    if topic == "admitted":
        request_id, written = _admitted(letter, taken, now, timeout_s)
    elif topic in AS_IT_WAS:
        request_id, written = "", _as_it_was(letter)
    else:
        raise CliError(
            f"{letter.letter_id} came from {letter.origin.topic}: whoever else reads that topic "
            "would see the record twice. Mend its reader and let it read the topic again"
        )
    note = Outgoing(
        topic=letter.record.partition.topic,
        key=letter.record.key,
        value=None,
        headers=(
            (NOTE, b"replayed"),
            (NOTE_LETTER, letter.letter_id.encode()),
            (NOTE_REQUEST, request_id.encode()),
        ),
        partition=letter.record.partition.number,
    )
    return Replay(letter, request_id, (written, note))


def again_id(request_id: str, taken: Iterable[str]) -> str:
    """The id of a request that is run again: `ID+r1`, or the first after those that are taken."""
    base = _AGAIN.sub("", request_id)
    highest = 0
    for other in (request_id, *taken):
        found = _AGAIN.search(other)
        if found and other[: found.start()] == base:
            highest = max(highest, int(found[1]))
    return f"{base}+r{highest + 1}"


def as_json(letter: Letter, replays: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """A letter as JSON-able data, without its value."""
    return {
        "id": letter.letter_id,
        "time": _time(letter.record.timestamp_ms),
        "service": letter.service,
        "reason": letter.reason,
        "message": letter.message,
        "error": letter.error,
        "attempts": letter.attempts,
        "request_id": letter.request_id,
        "tenant": letter.tenant,
        "group": letter.group,
        "topic": letter.origin.topic,
        "partition": letter.origin.number,
        "offset": letter.origin_offset,
        "original_time": _time(letter.origin_timestamp_ms),
        "replays": list(replays.get(letter.letter_id, ())),
    }


def _admitted(
    letter: Letter, taken: Iterable[str], now: dt.datetime, timeout_s: float | None
) -> tuple[str, Outgoing]:
    original = dataclasses.replace(letter.record, headers=original_headers(letter.record.headers))
    try:
        request = decode(original, admitted_pb2.AdmittedRequest)
    except InvalidRequest:
        # Its response was written under the id that it bears: without a new one there would be two.
        raise CliError(
            f"{letter.letter_id} is no admitted request that this version can read, so it cannot "
            "be given a new id; ask for it anew through a door"
        ) from None
    span_s = (request.deadline.ToMilliseconds() - request.published_at.ToMilliseconds()) / 1000
    span_s = timeout_s or min(max(1.0, span_s), LONGEST_TIMEOUT_S)
    request_id = again_id(request.request_id, taken)
    if not request.purpose:
        # A replay or a shadow copy keeps saying which request it repeats.
        request.origin_request_id = _AGAIN.sub("", request.request_id)
    request.request_id = request_id
    request.published_at.FromDatetime(now)
    request.admitted_at.FromDatetime(now)
    request.deadline.FromDatetime(now + dt.timedelta(seconds=span_s))
    request.request.deadline.CopyFrom(request.deadline)
    # It names the request that failed, whose response bears it.
    request.request.ClearField("idempotency_key")
    # Whoever waited there has the failed response.
    request.ClearField("reply_partition")
    request.stream = False
    written = encode(
        request,
        topic=letter.origin.topic,
        key=letter.record.key,
        source="cli",
        event_id=request_id,
        partition=letter.origin.number,
        time=now,
    )
    return request_id, _marked(written, letter)


def _as_it_was(letter: Letter) -> Outgoing:
    return _marked(
        Outgoing(
            topic=letter.origin.topic,
            key=letter.record.key,
            value=letter.record.value,
            headers=original_headers(letter.record.headers),
            partition=letter.origin.number,
        ),
        letter,
    )


def _marked(record: Outgoing, letter: Letter) -> Outgoing:
    where = f"{letter.record.partition.topic}/{letter.letter_id}"
    return dataclasses.replace(record, headers=(*record.headers, (REPLAYED_FROM, where.encode())))


def _time(timestamp_ms: int) -> str:
    stamp = dt.datetime.fromtimestamp(timestamp_ms / 1000, dt.UTC)
    return stamp.isoformat(timespec="milliseconds")
