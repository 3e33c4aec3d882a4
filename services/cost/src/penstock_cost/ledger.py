"""The ledger's domain: lines, their prices, what a batch of them adds, sums over a span. Pure."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import NamedTuple

from penstock.pricing import PriceTable, Tokens, UnknownPrice, add, cost_of
from penstock.records import Partition

__all__ = [
    "HOUR_US",
    "Cell",
    "Entry",
    "Group",
    "GroupSum",
    "Line",
    "Priced",
    "Sum",
    "Unpriced",
    "fold",
    "group_sums",
    "hour_of",
    "price",
    "recompute",
    "select_new",
]

HOUR_US = 3_600_000_000
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


@dataclasses.dataclass(frozen=True)
class Line:
    """A usage line as it was observed.

    Attributes:
        line_id: Its identity: a repeat carries the same one.
        request_id: The request it belongs to.
        kind: What the tokens were spent on, as the contract names it.
        tenant: Who pays.
        model: Whose prices hold.
        variant: Which variant of the model answered.
        tokens: What was used.
        observed_at_us: When, in microseconds since 1970, UTC.
    """

    line_id: str
    request_id: str
    kind: str
    tenant: str
    model: str
    variant: str
    tokens: Tokens
    observed_at_us: int

    @property
    def observed_at(self) -> dt.datetime:
        """When it was observed, UTC."""
        return _EPOCH + dt.timedelta(microseconds=self.observed_at_us)


@dataclasses.dataclass(frozen=True)
class Priced:
    """A line's exact amount in US dollars, and the version of the prices that gave it."""

    amount_usd: Decimal
    version: str


@dataclasses.dataclass(frozen=True)
class Unpriced:
    """A line without a price, and the remedy."""

    reason: str


@dataclasses.dataclass(frozen=True)
class Entry:
    """A line with its place on the log and its price."""

    partition: Partition
    offset: int
    line: Line
    price: Priced | Unpriced


class Cell(NamedTuple):
    """What the rollup sums by; an empty version stands for lines without a price."""

    tenant: str
    model: str
    variant: str
    hour_us: int
    version: str


@dataclasses.dataclass(frozen=True)
class Sum:
    """What some lines come to. Tokens and lines count unpriced lines too."""

    amount_usd: Decimal = Decimal(0)
    lines: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def __add__(self, other: Sum) -> Sum:
        return Sum(
            add(self.amount_usd, other.amount_usd),
            self.lines + other.lines,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
        )

    def __neg__(self) -> Sum:
        return Sum(
            self.amount_usd.copy_negate(), -self.lines, -self.prompt_tokens, -self.completion_tokens
        )


class Group(NamedTuple):
    """What spend is told by."""

    tenant: str
    model: str
    variant: str


@dataclasses.dataclass(frozen=True)
class GroupSum:
    """A group's spend, the price versions in it, and how many of its lines have no price."""

    group: Group
    total: Sum
    versions: tuple[str, ...]
    unpriced: int


def hour_of(time_us: int) -> int:
    """The start of the UTC hour, in microseconds since 1970."""
    return time_us - time_us % HOUR_US


def price(line: Line, prices: PriceTable) -> Priced | Unpriced:
    """A line's amount by the prices that held when it was observed."""
    try:
        found = prices.at(line.model, line.observed_at)
    except UnknownPrice as error:
        return Unpriced(error.message)
    return Priced(cost_of(found, line.tokens), found.version)


def recompute(lines: Iterable[Line], prices: PriceTable) -> Decimal:
    """The exact total of some lines, each line id counted once.

    Raises:
        UnknownPrice: A line has no price.
    """
    once = {line.line_id: line for line in lines}
    amounts = (
        cost_of(prices.at(line.model, line.observed_at), line.tokens) for line in once.values()
    )
    return add(*amounts)


def select_new(
    entries: Sequence[Entry], next_offsets: Mapping[Partition, int], known: Iterable[str]
) -> list[Entry]:
    """The entries that were not applied before, by offset or by line id; each id once.

    Args:
        entries: In the order of the log.
        next_offsets: The first offset of each partition that was not applied.
        known: The line ids among them that the ledger holds.
    """
    seen = set(known)
    fresh = []
    for entry in entries:
        if entry.offset < next_offsets.get(entry.partition, 0) or entry.line.line_id in seen:
            continue
        seen.add(entry.line.line_id)
        fresh.append(entry)
    return fresh


def fold(lines: Iterable[tuple[Line, Priced | Unpriced]]) -> dict[Cell, Sum]:
    """What some lines add to the rollup."""
    cells: dict[Cell, Sum] = defaultdict(Sum)
    for line, priced in lines:
        amount = priced.amount_usd if isinstance(priced, Priced) else Decimal(0)
        version = priced.version if isinstance(priced, Priced) else ""
        cell = Cell(line.tenant, line.model, line.variant, hour_of(line.observed_at_us), version)
        cells[cell] += Sum(amount, 1, line.tokens.prompt, line.tokens.completion)
    return dict(cells)


def group_sums(cells: Iterable[tuple[Cell, Sum]], prices: PriceTable) -> list[GroupSum]:
    """The cells added up by group, in the groups' order; versions newest first."""
    totals: dict[Group, Sum] = defaultdict(Sum)
    versions: dict[Group, set[str]] = defaultdict(set)
    unpriced: dict[Group, int] = defaultdict(int)
    for cell, amount in cells:
        group = Group(cell.tenant, cell.model, cell.variant)
        totals[group] += amount
        if cell.version:
            versions[group].add(cell.version)
        else:
            unpriced[group] += amount.lines
    return [
        GroupSum(
            group,
            totals[group],
            tuple(prices.newest_first(group.model, versions[group])),
            unpriced[group],
        )
        for group in sorted(totals)
        if totals[group].lines
    ]
