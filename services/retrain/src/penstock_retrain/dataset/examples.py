"""A row on its way into a dataset, and why rows are left out. Pure."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from enum import StrEnum

from penstock_retrain.dataset.names import Source
from penstock_retrain.dataset.rows import FeedbackRow, Message, RequestRow, ResponseRow

__all__ = ["Candidate", "Coordinates", "Example", "LeftOut", "Pool", "Split", "Tally"]


class Pool(StrEnum):
    """Why a row was taken."""

    DRIFTED = "drifted"  # recent, of a segment that drifted
    RECENT = "recent"
    REPLAY = "replay"  # older
    IMPORTED = "imported"  # from a file


class Split(StrEnum):
    """What a row is for."""

    TRAIN = "train"
    VALIDATION = "validation"
    GOLDEN = "golden"


class LeftOut(StrEnum):
    """Why a request is not in a dataset; each is counted under the first that holds."""

    NOT_A_CLIENTS = "not_a_clients"  # a probe, a replay, a shadow copy, or a teacher's own
    GOLDEN_SET = "golden_set"  # a request of a fixed golden set: it is only ever measured
    OTHER_MODEL = "other_model"
    NOT_ANSWERED = "not_answered"
    NO_REQUEST = "no_request"  # its question was never collected
    UNLABELLED = "unlabelled"  # nobody said what is right
    # A plain label of a JSON answer without a `label_field`, or a value that JSON cannot hold.
    LABEL_UNUSABLE = "label_unusable"
    CUT_OFF = "cut_off"  # its score is good, and the answer ends where it had to be short
    UNTAUGHT = "untaught"  # the teacher gave no answer, or was not asked for so many
    TOO_LONG = "too_long"
    PERSONAL_DATA = "personal_data"
    NEAR_DUPLICATE = "near_duplicate"  # of a newer row
    BALANCE = "balance"  # its class has its share
    REPLAY_SHARE = "replay_share"  # older rows have theirs
    MAX_ROWS = "max_rows"


class Tally:
    """Counts what was left out, and why."""

    def __init__(self) -> None:
        self._counts: Counter[LeftOut] = Counter()

    def add(self, reason: LeftOut, count: int = 1) -> None:
        """Counts rows."""
        self._counts[reason] += count

    def counts(self) -> dict[str, int]:
        """How many, by reason, in the order of the reasons; those that never held are left out."""
        return {reason.value: self._counts[reason] for reason in LeftOut if self._counts[reason]}


@dataclasses.dataclass(frozen=True, order=True, slots=True)
class Coordinates:
    """Where a record stands, on which log.

    Attributes:
        source: Its partition.
        offset: Its offset there.
    """

    source: Source
    offset: int

    def __str__(self) -> str:
        return f"{self.source}@{self.offset}"


@dataclasses.dataclass(frozen=True, slots=True)
class Candidate:
    """A request, its answer, and what people thought of it.

    Attributes:
        request: The request.
        response: Its terminal response.
        feedback: What was said of it, the newest last.
        sources: The records behind it.
    """

    request: RequestRow
    response: ResponseRow
    feedback: Sequence[FeedbackRow]
    sources: tuple[Coordinates, ...]

    @property
    def group(self) -> str:
        """What must not be split: a tenant's ordering key, or the request alone."""
        return group_of(self.request.tenant, self.request.ordering_key, self.request.request_id)

    @property
    def question(self) -> str:
        """What is asked and what about, without instructions that all requests share."""
        turns = (m.content for m in self.request.messages if m.role != "system")
        passages = (passage.text for passage in self.request.passages)
        return "\n".join((self.request.prompt, *turns, *passages))


@dataclasses.dataclass(frozen=True, slots=True)
class Example:
    """A row of a dataset.

    Attributes:
        id: The request's id, or a digest of an imported row.
        group: What must not be split, as a digest.
        messages: The question: a conversation that ends before the answer.
        prompt: The text to continue where it is no conversation; else empty.
        target: The right answer; empty while a teacher is still to be asked.
        rejected: An answer that was given and is worse; None where there is none.
        label_source: Where the right answer comes from.
        labels: The request's segments.
        time_ms: When it was asked, milliseconds since 1970.
        pool: Why it was taken.
        sources: The records behind it; empty of an imported row.
    """

    id: str
    group: str
    messages: tuple[Message, ...]
    prompt: str
    target: str
    rejected: str | None
    label_source: str
    labels: Mapping[str, str]
    time_ms: int
    pool: Pool
    sources: tuple[Coordinates, ...] = ()

    @property
    def chars(self) -> int:
        """Characters of question and answers."""
        said = sum(len(m.content) for m in self.messages) + len(self.prompt)
        return said + max(len(self.target), len(self.rejected or ""))


def group_of(tenant: str, ordering_key: str, request_id: str) -> str:
    """What must not be split, as a digest: a key may name a person. Tenants' keys never meet."""
    name = f"key/{len(tenant)}:{tenant}/{ordering_key}" if ordering_key else f"id/{request_id}"
    return hashlib.blake2b(name.encode(), digest_size=16).hexdigest()
