"""What `penstock replay` reads out of a window, writes, and counts of what comes back. Pure."""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import re
from collections import Counter
from collections.abc import Container, Iterable, Mapping

from penstock.cli.run import CliError
from penstock.codec import decode, encode
from penstock.errors import InvalidRequest
from penstock.records import Outgoing, Record
from penstock.v1 import admitted_pb2, common_pb2, response_pb2, route_pb2

__all__ = ["Asked", "Found", "Original", "Tally", "Window", "pin", "repeat", "replay_id"]

REPLAY = common_pb2.PURPOSE_REPLAY
# Live requests go first: 0 is normal, lower is sooner.
PRIORITY = 50
LONGEST_TIMEOUT_S = 86_400.0
RUN_ID = re.compile(r"[A-Za-z0-9_.-]{1,40}")


@dataclasses.dataclass(frozen=True)
class Window:
    """Which requests are run again; unset fields do not restrict.

    Attributes:
        start: Admitted at or after it, UTC.
        end: Admitted before it, UTC.
        model: Only this one's.
        tenant: Only this one's.
        limit: The first so many.
    """

    start: dt.datetime
    end: dt.datetime
    model: str | None = None
    tenant: str | None = None
    limit: int = 10_000

    def holds(self, admitted: admitted_pb2.AdmittedRequest, timestamp_ms: int) -> bool:
        """Whether an admitted request is among them: never a replay, a shadow copy or a probe."""
        return (
            admitted.purpose == common_pb2.PURPOSE_UNSPECIFIED
            and self.start.timestamp() * 1000 <= timestamp_ms < self.end.timestamp() * 1000
            and self.model in (None, admitted.request.model)
            and self.tenant in (None, admitted.request.tenant)
        )


@dataclasses.dataclass(frozen=True)
class Asked:
    """What the replays shall differ in.

    Attributes:
        run_id: Names the run.
        variant: Who answers; who answered before when None.
        charge_to: The tenant that pays; whose request it was when None.
        timeout_s: How long each may take; as long as before when None.
    """

    run_id: str
    variant: str | None = None
    charge_to: str | None = None
    timeout_s: float | None = None

    def span_s(self, original: Original) -> float:
        """How long a request's replay may take."""
        if self.timeout_s is not None:
            return self.timeout_s
        old = original.admitted
        span_s = (old.deadline.ToMilliseconds() - old.published_at.ToMilliseconds()) / 1000
        return min(max(1.0, span_s), LONGEST_TIMEOUT_S)

    def __post_init__(self) -> None:
        if not RUN_ID.fullmatch(self.run_id):
            raise CliError("a run id has at most 40 letters, digits, dots, dashes and underscores")


@dataclasses.dataclass(frozen=True)
class Original:
    """A request of the window.

    Attributes:
        admitted: The request.
        key: Its record's key.
        partition: Where it stood, and its replay shall stand.
        timestamp_ms: Its record's time.
    """

    admitted: admitted_pb2.AdmittedRequest
    key: bytes | None
    partition: int
    timestamp_ms: int


class Found:
    """Takes records of `admitted` in, from the window's start to the end of the log.

    Args:
        window: Which requests are meant.
        run_id: The run; what it wrote before is noted.

    Attributes:
        matching: How many requests of the window there are, those beyond its limit included.
        written: Ids of replays that are there already.
        unreadable: Records that are no admitted request.
    """

    def __init__(self, window: Window, run_id: str) -> None:
        self.matching = 0
        self.written: set[str] = set()
        self.unreadable = 0
        self._window = window
        self._originals: dict[str, Original] = {}
        self._suffix = replay_id("", run_id)

    def take(self, record: Record) -> None:
        """Takes one record in."""
        try:
            admitted = decode(record, admitted_pb2.AdmittedRequest)
        except InvalidRequest:
            self.unreadable += 1
            return
        if admitted.request_id.endswith(self._suffix):
            self.written.add(admitted.request_id)
        elif self._window.holds(admitted, record.timestamp_ms):
            # An id stands twice where its idempotency key was used again: the first counts.
            if admitted.request_id not in self._originals:
                self.matching += 1
                self._originals[admitted.request_id] = Original(
                    admitted, record.key, record.partition.number, record.timestamp_ms
                )
            if len(self._originals) > 2 * self._window.limit:
                self._originals = {o.admitted.request_id: o for o in self.chosen()}

    def chosen(self) -> list[Original]:
        """The requests to run again, oldest first, at most as many as the window allows."""
        ordered = sorted(
            self._originals.values(), key=lambda o: (o.timestamp_ms, o.admitted.request_id)
        )
        return ordered[: self._window.limit]


def replay_id(request_id: str, run_id: str) -> str:
    """The id of a request's replay in a run: the same however often it is derived."""
    return f"{request_id}~replay-{run_id}"


def pin(
    originals: Iterable[Original], routes: Mapping[str, route_pb2.Route], variant: str | None
) -> dict[str, int]:
    """Checks that every replay has who answers it.

    Args:
        originals: The requests.
        routes: The newest route of each model.
        variant: Who shall answer; who answered before when None.

    Returns:
        The version of each model's route.

    Raises:
        CliError: A route has not the variant; lists those that it has.
    """
    needed = {(o.admitted.request.model, variant or o.admitted.variant) for o in originals}
    for model, name in sorted(needed):
        route = routes.get(model)
        if route is None:
            raise CliError(f"model {model} has no route any more; leave it out with --model")
        names = [v.name for v in route.variants]
        if name not in names:
            raise CliError(
                f"the route of {model} (version {route.version}) has no variant {name!r}; name one "
                f"with --variant: {', '.join(names) or 'it has none'}"
            )
    return {model: routes[model].version for model, _ in needed}


def repeat(
    original: Original,
    asked: Asked,
    *,
    topic: str,
    route_version: int,
    now: dt.datetime,
) -> Outgoing:
    """A request's replay as a record of `admitted`.

    Args:
        original: The request.
        asked: What it shall differ in.
        topic: The full name of `admitted`.
        route_version: The version of the route that has the variant.
        now: When it is written, UTC; its deadline counts from it.
    """
    old = original.admitted
    made = admitted_pb2.AdmittedRequest(
        request_id=replay_id(old.request_id, asked.run_id),
        request=old.request,
        variant=asked.variant or old.variant,
        route_version=route_version,
        encoding=old.encoding,
        source=old.source if old.HasField("source") else None,
        purpose=REPLAY,
        origin_request_id=old.request_id,
    )
    made.deadline.FromDatetime(now + dt.timedelta(seconds=asked.span_s(original)))
    made.published_at.FromDatetime(now)
    made.admitted_at.FromDatetime(now)
    request = made.request
    request.deadline.CopyFrom(made.deadline)
    request.priority = max(request.priority, PRIORITY)
    request.no_cache = True
    # It names the original, whose response bears it.
    request.ClearField("idempotency_key")
    if asked.charge_to is not None:
        request.tenant = asked.charge_to
    return encode(
        made,
        topic=topic,
        key=original.key,
        source="cli",
        event_id=made.request_id,
        partition=original.partition,
        time=now,
    )


@dataclasses.dataclass(frozen=True, slots=True)
class _End:
    outcome: int
    digest: bytes
    prompt_tokens: int
    completion_tokens: int
    tenant: str
    created_at: dt.datetime
    charged: bool


class Tally:
    """Counts the responses of a run, and compares them with the originals'.

    Args:
        run_id: The run.
        originals: Ids of the requests that were run again.
    """

    def __init__(self, run_id: str, originals: Iterable[str]) -> None:
        self._waiting = {replay_id(each, run_id): each for each in originals}
        self._originals = set(self._waiting.values())
        self._replays: dict[str, _End] = {}
        self._before: dict[str, _End] = {}

    @property
    def expected(self) -> int:
        """How many responses the run has when it has ended."""
        return len(self._waiting)

    @property
    def ended(self) -> int:
        """How many there are."""
        return len(self._replays)

    def take_replay(self, record: Record) -> None:
        """Takes a record of `replays` in."""
        self._take(record, self._waiting, self._replays)

    def take_original(self, record: Record) -> None:
        """Takes a record of `responses` in."""
        self._take(record, self._originals, self._before)

    def outcomes(self) -> Counter[str]:
        """How the replays ended."""
        return Counter(_name(end.outcome) for end in self._replays.values())

    def tokens(self) -> tuple[int, int]:
        """Prompt and completion tokens of the replays."""
        ends = self._replays.values()
        return sum(e.prompt_tokens for e in ends), sum(e.completion_tokens for e in ends)

    def charged(self) -> tuple[frozenset[str], dt.datetime | None, int]:
        """Who pays for the replays, since when, and for how many; None where nobody does."""
        charged = [end for end in self._replays.values() if end.charged]
        return (
            frozenset(end.tenant for end in charged),
            min((end.created_at for end in charged), default=None),
            len(charged),
        )

    def comparison(self) -> Counter[str]:
        """How the answers stand to the originals': `equal`, `different`, or why they cannot be."""
        counted: Counter[str] = Counter()
        for request_id, end in self._replays.items():
            before = self._before.get(self._waiting[request_id])
            counted[_compared(before, end)] += 1
        return counted

    def _take(self, record: Record, ids: Container[str], into: dict[str, _End]) -> None:
        try:
            response = decode(record, response_pb2.GenerateResponse)
        except InvalidRequest:
            return
        if response.request_id in ids:
            into[response.request_id] = _End(
                response.outcome,
                hashlib.blake2b(response.text.encode(), digest_size=16).digest(),
                response.usage.prompt_tokens,
                response.usage.completion_tokens,
                response.tenant,
                response.created_at.ToDatetime(dt.UTC),
                response.HasField("usage"),
            )


def _compared(before: _End | None, after: _End) -> str:
    if before is None:
        return "original not found"
    if before.outcome != response_pb2.OUTCOME_ANSWERED:
        return "original was no answer"
    if after.outcome != response_pb2.OUTCOME_ANSWERED:
        return "replay is no answer"
    return "equal" if before.digest == after.digest else "different"


def _name(outcome: int) -> str:
    value = response_pb2.Outcome.DESCRIPTOR.values_by_number.get(outcome)
    return value.name.removeprefix("OUTCOME_").lower() if value is not None else str(outcome)
