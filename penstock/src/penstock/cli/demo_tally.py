"""What the demonstration has seen, and what it claims of it: pure.

The log is read twice. A first tally follows the run as it goes; when it is over, a second one is
made from the records that are on the log, so that what is claimed does not rest on what a reader
happened to see.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal

from penstock.cli.run import CliError
from penstock.jsonlines import split_lines
from penstock.pricing import UnknownPrice, add, plain
from penstock.v1 import admitted_pb2, cost_service_pb2, request_pb2, response_pb2

__all__ = ["Claim", "Numbers", "Price", "Tally", "Ticket", "claims", "load_tickets", "percentile"]

ANSWERED = response_pb2.OUTCOME_ANSWERED

# What a response's tokens cost, in US dollars, exactly.
Price = Callable[[response_pb2.GenerateResponse], Decimal]


@dataclasses.dataclass(frozen=True)
class Ticket:
    """A support ticket and how it should be sorted."""

    ticket_id: str
    text: str
    expected: Mapping[str, str]

    def key(self, run_id: str) -> str:
        """The idempotency key of the ticket's request in a run."""
        return f"{self.ticket_id}-{run_id}"

    def request(self, run_id: str, tenant: str) -> request_pb2.GenerateRequest:
        """The ticket as a request; greedy, so that a run can be repeated."""
        return request_pb2.GenerateRequest(
            messages=[request_pb2.ChatMessage(role="user", content=self.text)],
            sampling=request_pb2.SamplingParameters(temperature=0),
            idempotency_key=self.key(run_id),
            tenant=tenant,
            labels={"run": run_id},
        )


@dataclasses.dataclass(frozen=True)
class Claim:
    """Something the demonstration says of itself, and whether it is so."""

    name: str
    holds: bool
    found: str


@dataclasses.dataclass(frozen=True)
class Numbers:
    """The run in figures; times in seconds, None where nothing was measured."""

    published: int
    admitted: int
    answered: int
    elapsed_s: float
    completion_tokens_per_s: float
    latency_p50_s: float | None
    latency_p99_s: float | None
    engine_p50_s: float | None
    engine_p99_s: float | None


def load_tickets(text: str, limit: int | None = None) -> list[Ticket]:
    """Tickets from JSON lines.

    Raises:
        CliError: A line is no ticket, or there is none, or an id comes twice.
    """
    tickets: list[Ticket] = []
    for number, line in enumerate(split_lines(text), start=1):
        if limit is not None and len(tickets) == limit:
            break
        try:
            entry = json.loads(line)
            tickets.append(Ticket(entry["ticket_id"], entry["text"], dict(entry["expected"])))
        except (ValueError, KeyError, TypeError) as error:
            raise CliError(f"line {number} is not a ticket: {error!r}") from error
    if not tickets:
        raise CliError("there are no tickets in the file")
    if len({ticket.ticket_id for ticket in tickets}) < len(tickets):
        raise CliError("a ticket_id comes twice in the file")
    return tickets


def percentile(values: Sequence[float], share: float) -> float | None:
    """The nearest-rank percentile: the smallest value that `share` of them do not exceed."""
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


class Tally:
    """Counts a run's records. Records of other tenants and other runs are passed over.

    Args:
        tickets: What is published.
        run_id: Names the run.
        tenant: The run's own tenant.
    """

    def __init__(self, tickets: Sequence[Ticket], run_id: str, tenant: str) -> None:
        self.tickets = {ticket.key(run_id): ticket for ticket in tickets}
        self.tenant = tenant
        self.admissions: Counter[str] = Counter()
        self.responses: dict[str, list[response_pb2.GenerateResponse]] = {}
        self.strangers = 0
        self._published_s: dict[str, float] = {}
        self._ended_s: dict[str, float] = {}

    def publish(self, key: str, now_s: float) -> None:
        """A ticket is about to be written."""
        self._published_s[key] = now_s

    def admit(self, record: admitted_pb2.AdmittedRequest) -> None:
        """A record of `admitted`."""
        if record.request.tenant == self.tenant:
            self.admissions[record.request.idempotency_key] += 1

    def respond(self, response: response_pb2.GenerateResponse, now_s: float) -> None:
        """A record of `responses`."""
        if response.tenant != self.tenant:
            return
        key = response.idempotency_key
        if key not in self.tickets:
            self.strangers += 1
            return
        self.responses.setdefault(key, []).append(response)
        self._ended_s.setdefault(key, now_s)

    @property
    def complete(self) -> bool:
        """Whether every ticket has come to its end."""
        return len(self.responses) == len(self.tickets)

    @property
    def first(self) -> list[response_pb2.GenerateResponse]:
        """The first terminal record of each ticket that has one."""
        return [found[0] for found in self.responses.values()]

    @property
    def answered(self) -> int:
        """How many tickets have an answer."""
        return sum(response.outcome == ANSWERED for response in self.first)

    def correct(self) -> int:
        """How many answers are JSON with exactly the expected fields."""
        return sum(
            found[0].outcome == ANSWERED and _parsed(found[0].text) == self.tickets[key].expected
            for key, found in self.responses.items()
        )

    def correct_fields(self) -> Counter[str]:
        """For each labelled field, how many answers have it right."""
        right: Counter[str] = Counter()
        for key, ticket in self.tickets.items():
            found = self.responses.get(key)
            answer = _parsed(found[0].text) if found else None
            for field, value in ticket.expected.items():
                right[field] += isinstance(answer, dict) and answer.get(field) == value
        return right

    def cost(self, price: Price) -> Decimal:
        """What the responses' tokens cost by a price table, with every repeat counted."""
        every = (r for found in self.responses.values() for r in found if r.HasField("usage"))
        return add(*map(price, every))

    def numbers(self, now_s: float) -> Numbers:
        """The figures up to now, or to the last answer when all are there."""
        latencies = [end - self._published_s[key] for key, end in self._ended_s.items()]
        begun = min(self._published_s.values(), default=now_s)
        ended = max(self._ended_s.values(), default=now_s) if self.complete else now_s
        engine = [r.timings.generation_s for r in self.first if r.outcome == ANSWERED]
        tokens = sum(r.usage.completion_tokens for r in self.first)
        elapsed = ended - begun
        return Numbers(
            published=len(self._published_s),
            admitted=len(self.admissions),
            answered=self.answered,
            elapsed_s=elapsed,
            completion_tokens_per_s=tokens / elapsed if elapsed > 0 else 0.0,
            latency_p50_s=percentile(latencies, 0.5),
            latency_p99_s=percentile(latencies, 0.99),
            engine_p50_s=percentile(engine, 0.5),
            engine_p99_s=percentile(engine, 0.99),
        )


def claims(
    tally: Tally,
    spend: cost_service_pb2.GetSpendResponse | None,
    price: Price,
    min_accuracy: float,
) -> list[Claim]:
    """Every claim about a finished run.

    Args:
        tally: Made from what is on the log.
        spend: The ledger's sums for the run's tenant; None where it could not be asked.
        price: The price table.
        min_accuracy: The least share of tickets sorted rightly.
    """
    return [*_answers(tally, min_accuracy), *_money(tally, spend, price)]


def _answers(tally: Tally, min_accuracy: float) -> list[Claim]:
    total = len(tally.tickets)
    missing = [key for key in tally.tickets if key not in tally.responses]
    doubled = [key for key, found in tally.responses.items() if len(found) > 1]
    others = Counter(
        response_pb2.Outcome.Name(r.outcome).removeprefix("OUTCOME_").lower()
        for r in tally.first
        if r.outcome != ANSWERED
    )
    once = sum(tally.admissions[key] == 1 for key in tally.tickets)
    correct = tally.correct()
    accuracy = correct / total
    fields = [f"; {name} {n / total:.1%}" for name, n in tally.correct_fields().items()]
    refused = ", ".join(f"{count} {name}" for name, count in others.items())
    reasons = Counter(r.error.message for r in tally.first if r.error.message).most_common(1)
    because = f"; most often: {reasons[0][0]}" if reasons else ""
    return [
        Claim(
            "every ticket was admitted once",
            once == total and len(tally.admissions) == total,
            f"{once} of {total}" + _hint(tally.admissions, "ingest admitted none"),
        ),
        Claim(
            "every ticket has exactly one terminal response",
            not missing and not doubled and not tally.strangers,
            f"{total - len(missing) - len(doubled)} of {total}"
            + _some("missing", missing)
            + _some("more than one", doubled)
            + (f"; {tally.strangers} for no ticket" if tally.strangers else ""),
        ),
        Claim(
            "every response is an answer",
            tally.answered == total,
            f"{tally.answered} of {total}" + (f"; {refused}{because}" if refused else ""),
        ),
        Claim(
            f"accuracy is at least {min_accuracy:.0%}",
            accuracy >= min_accuracy,
            f"{accuracy:.1%} ({correct} of {total})" + "".join(fields),
        ),
    ]


def _money(
    tally: Tally, spend: cost_service_pb2.GetSpendResponse | None, price: Price
) -> list[Claim]:
    lines = "the ledger has one line per answer"
    tokens = "the ledger has the responses' tokens"
    total = "the ledger's total is the responses' cost, exactly"
    if spend is None:
        return [Claim(name, False, "the ledger did not answer") for name in (lines, tokens, total)]
    ledger_tokens = (
        sum(group.prompt_tokens for group in spend.groups),
        sum(group.completion_tokens for group in spend.groups),
    )
    every = [r for found in tally.responses.values() for r in found]
    response_tokens = (
        sum(r.usage.prompt_tokens for r in every),
        sum(r.usage.completion_tokens for r in every),
    )
    return [
        Claim(lines, spend.lines == tally.answered, f"{spend.lines} for {tally.answered}"),
        Claim(
            tokens,
            ledger_tokens == response_tokens,
            f"{ledger_tokens[0]} + {ledger_tokens[1]} for "
            f"{response_tokens[0]} + {response_tokens[1]}",
        ),
        _same_total(total, Decimal(spend.total_usd or "0"), tally, price),
    ]


def _same_total(name: str, billed: Decimal, tally: Tally, price: Price) -> Claim:
    try:
        cost = tally.cost(price)
    except UnknownPrice as error:
        return Claim(name, False, str(error))
    equal = "=" if billed == cost else "≠"
    # A run without a single answer costs nothing, and that would prove nothing.
    return Claim(name, billed == cost and cost > 0, f"{plain(billed)} {equal} {plain(cost)} USD")


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _some(what: str, keys: Sequence[str]) -> str:
    if not keys:
        return ""
    more = ", ..." if len(keys) > 3 else ""
    return f"; {what}: {len(keys)} ({', '.join(keys[:3])}{more})"


def _hint(seen: Mapping[str, int], text: str) -> str:
    return "" if seen else f"; {text}"
