"""What happens to a record whose handling failed: one table from errors to ways on. Pure.

docs/dead-letters.md shows the same table to people.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum
from typing import TypeGuard, assert_never

from penstock.errors import Code, PenstockError

__all__ = ["Poisoned", "Reason", "Way", "is_outage", "reason_of", "retry_delay_s", "way_of"]

# A record that was being worked on at so many deaths may be what killed: it is tried alone.
SUSPECT_DEATHS = 2
MAX_DEATHS = 3
MAX_ATTEMPTS = 3

FIRST_DELAY_S = 0.2
LONGEST_DELAY_S = 10.0


class Poisoned(Exception):
    """A record that owners or engines died of too often."""


class Way(StrEnum):
    """What happens next to a record whose handling failed."""

    # The record is at fault and can be answered: a terminal response says so, no dead letter.
    REFUSE = "refuse"
    # Its time has passed: a terminal `expired` response, no dead letter.
    EXPIRE = "expire"
    # Its client took it back: a terminal `cancelled` response, no dead letter.
    CANCEL = "cancel"
    # Nothing is wrong but the moment: again after a delay, for as long as the deadline allows.
    WAIT = "wait"
    # What was needed broke: again after a delay, on another replica, a bounded number of times.
    RETRY = "retry"
    # It may be what kills engines: again, with no other work beside it.
    QUARANTINE = "quarantine"
    # Trying again cannot help, or did not: a dead letter, and a terminal `failed` response.
    BURY = "bury"


class Reason(StrEnum):
    """Why a record was given up: the stable codes of the `penstock-reason` header."""

    # The bytes are not the topic's record in any encoding.
    UNDECODABLE = "undecodable"
    # The record can be read, but holds a value that its reader cannot use.
    INVALID = "invalid"
    # The handler raised: a bug, which the same record would meet again.
    HANDLER_RAISED = "handler-raised"
    # What it needed stayed broken through every attempt.
    RETRIES_EXHAUSTED = "retries-exhausted"
    # Owners or engines died of it, also when it was alone.
    POISON = "poison"


def way_of(
    error: Exception,
    *,
    deaths: int = 0,
    attempt: int = 1,
    max_attempts: int = MAX_ATTEMPTS,
    max_deaths: int = MAX_DEATHS,
) -> Way:
    """The way on for a record whose handling ended in an error.

    Args:
        error: What was raised, or stands for the engine's answer.
        deaths: How often an owner or an engine died while it had the record.
        attempt: Which attempt it was that failed, from 1.
        max_attempts: Attempts that a record gets where something else broke.
        max_deaths: Deaths after which a record is held to be poison.
    """
    if deaths >= max_deaths or isinstance(error, Poisoned):
        return Way.BURY
    way = _way(error)
    if way is Way.RETRY:
        if deaths >= SUSPECT_DEATHS:
            return Way.QUARANTINE
        if attempt >= max_attempts:
            return Way.BURY
    return way


def is_outage(error: Exception) -> TypeGuard[PenstockError]:
    """Whether something is away that many records need, so that it says nothing of this one.

    Whoever waits hears it as it is; a partition does not halt for it.
    """
    return isinstance(error, PenstockError) and error.code in _OUTAGES


def reason_of(error: Exception | None) -> Reason:
    """The code under which a record is buried, by what was raised."""
    if isinstance(error, Poisoned):
        return Reason.POISON
    if not isinstance(error, PenstockError):
        return Reason.HANDLER_RAISED
    if error.code == Code.ERROR_CODE_MALFORMED:
        return Reason.UNDECODABLE
    match _way(error):
        case Way.REFUSE:
            return Reason.INVALID
        case Way.RETRY | Way.WAIT:
            return Reason.RETRIES_EXHAUSTED
        case Way.EXPIRE | Way.CANCEL | Way.QUARANTINE | Way.BURY:
            return Reason.HANDLER_RAISED
        case never:
            assert_never(never)


def retry_delay_s(
    attempt: int,
    seed: str,
    *,
    first_s: float = FIRST_DELAY_S,
    longest_s: float = LONGEST_DELAY_S,
) -> float:
    """How long to wait after an attempt that failed, in seconds.

    It doubles with each attempt up to a bound, and half of it is drawn: records that failed
    together do not come back together. The same arguments give the same delay. ("Equal jitter";
    Brooker, Exponential Backoff And Jitter, AWS Architecture Blog, 2015.)

    Args:
        attempt: Which attempt failed, from 1.
        seed: Names the record, such as its request id.
        first_s: The bound of the first delay.
        longest_s: The bound of every delay.

    Returns:
        A value in [bound / 2, bound), where bound is min(longest_s, first_s * 2^(attempt - 1)).
    """
    # Beyond 2^64 no bound is left that a power could reach.
    bound_s = min(longest_s, first_s * 2.0 ** min(attempt - 1, 64))
    digest = hashlib.blake2b(f"{attempt}:{seed}".encode(), digest_size=8).digest()
    drawn = int.from_bytes(digest, "big") / 2**64
    return bound_s / 2 * (1 + drawn)


def _way(error: Exception) -> Way:
    if not isinstance(error, PenstockError):
        return Way.BURY
    way = _WAYS.get(error.code, Way.RETRY)
    # Whoever raised it knows best whether the same attempt can end better.
    if way is Way.BURY and error.retryable:
        return Way.RETRY
    return way


_OUTAGES = (Code.ERROR_CODE_UNAVAILABLE, Code.ERROR_CODE_OVERLOADED)
_WAYS = {
    Code.ERROR_CODE_MALFORMED: Way.BURY,
    Code.ERROR_CODE_INVALID_ARGUMENT: Way.REFUSE,
    Code.ERROR_CODE_UNKNOWN_MODEL: Way.REFUSE,
    Code.ERROR_CODE_CONTEXT_LENGTH_EXCEEDED: Way.REFUSE,
    Code.ERROR_CODE_TOO_LARGE: Way.REFUSE,
    Code.ERROR_CODE_BUDGET_EXHAUSTED: Way.REFUSE,
    Code.ERROR_CODE_DEADLINE_EXCEEDED: Way.EXPIRE,
    Code.ERROR_CODE_CANCELLED: Way.CANCEL,
    Code.ERROR_CODE_OVERLOADED: Way.WAIT,
    Code.ERROR_CODE_UNAVAILABLE: Way.RETRY,
    Code.ERROR_CODE_INTERNAL: Way.RETRY,
    # Ends a stream, never a record: raised by a handler it is a bug.
    Code.ERROR_CODE_STREAM_DIVERGED: Way.BURY,
}
