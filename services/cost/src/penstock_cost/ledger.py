"""The ledger's domain: lines, their prices, what a batch of them adds, sums over a span. Pure."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import NamedTuple

from penstock.pricing import Price, PriceTable, Tokens, UnknownPrice, add, cost_of, cost_of_training
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
    "billed",
    "fold",
    "group_sums",
    "hour_of",
    "price",
    "recompute",
    "select_new",
]

HOUR_US = 3_600_000_000
NOTHING = Tokens(prompt=0, cached=0, completion=0)
# Work that the platform gives itself: the operator's cost, on nobody's bill. What is not named
# here is billed, a kind of a newer contract too: a line is never given away by mistake.
TRAINING = "USAGE_KIND_TRAINING"
UNBILLED = frozenset({"USAGE_KIND_SHADOW", "USAGE_KIND_PROBE", TRAINING})
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


@dataclasses.dataclass(frozen=True)
class Line:
    """A usage line as it was observed.

    Attributes:
        line_id: Its identity: a repeat carries the same one.
        request_id: The request it belongs to.
        kind: What the tokens were spent on, as the contract names it.
        tenant: Whose request it was; who pays, where the kind is billed.
        model: Whose prices hold.
        variant: Which variant of the model answered.
        tokens: What was used.
        observed_at_us: When, in microseconds since 1970, UTC.
        avoided: What a cache hit did not have to use: priced, never billed.
    """

    line_id: str
    request_id: str
    kind: str
    tenant: str
    model: str
    variant: str
    tokens: Tokens
    observed_at_us: int
    avoided: Tokens = NOTHING

    @property
    def observed_at(self) -> dt.datetime:
        """When it was observed, UTC."""
        return _EPOCH + dt.timedelta(microseconds=self.observed_at_us)


@dataclasses.dataclass(frozen=True)
class Priced:
    """A line's exact amounts in US dollars, and the version of the prices that gave them."""

    amount_usd: Decimal
    version: str
    avoided_usd: Decimal = Decimal(0)


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
    kind: str
    hour_us: int
    version: str


@dataclasses.dataclass(frozen=True)
class Sum:
    """What some lines come to. Tokens and lines count unpriced lines too."""

    amount_usd: Decimal = Decimal(0)
    lines: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    avoided_usd: Decimal = Decimal(0)

    def __add__(self, other: Sum) -> Sum:
        return Sum(
            add(self.amount_usd, other.amount_usd),
            self.lines + other.lines,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            add(self.avoided_usd, other.avoided_usd),
        )

    def __neg__(self) -> Sum:
        return Sum(
            self.amount_usd.copy_negate(),
            -self.lines,
            -self.prompt_tokens,
            -self.completion_tokens,
            self.avoided_usd.copy_negate(),
        )


class Group(NamedTuple):
    """What spend is told by."""

    tenant: str
    model: str
    variant: str


@dataclasses.dataclass(frozen=True)
class GroupSum:
    """A group's spend by kind, the price versions in it, and how many lines have no price."""

    group: Group
    kinds: Mapping[str, Sum]
    versions: tuple[str, ...]
    unpriced: int

    @property
    def total(self) -> Sum:
        """What is billed."""
        return sum((found for kind, found in self.kinds.items() if billed(kind)), Sum())

    @property
    def unbilled(self) -> Sum:
        """What the operator bears."""
        return sum((found for kind, found in self.kinds.items() if not billed(kind)), Sum())


def billed(kind: str) -> bool:
    """Whether a tenant pays for lines of this kind. A cache hit is billed too, for nothing used."""
    return kind not in UNBILLED


def hour_of(time_us: int) -> int:
    """The start of the UTC hour, in microseconds since 1970."""
    return time_us - time_us % HOUR_US


def price(line: Line, prices: PriceTable) -> Priced | Unpriced:
    """A line's amounts by the prices that held when it was observed."""
    try:
        found = prices.at(line.model, line.observed_at)
        amount = _amount(line, found)
    except UnknownPrice as error:
        return Unpriced(error.message)
    return Priced(amount, found.version, cost_of(found, line.avoided))


def _amount(line: Line, price: Price) -> Decimal:
    if line.kind == TRAINING:
        return cost_of_training(line.model, price, line.tokens.prompt)
    return cost_of(price, line.tokens)


def recompute(lines: Iterable[Line], prices: PriceTable) -> Decimal:
    """The exact total that some lines are billed, each line id counted once.

    Raises:
        UnknownPrice: A line has no price.
    """
    once = {line.line_id: line for line in lines}
    amounts = (
        _amount(line, prices.at(line.model, line.observed_at))
        for line in once.values()
        if billed(line.kind)
    )
    return add(*amounts)


def select_new(entries: Sequence[Entry], known: Iterable[str]) -> list[Entry]:
    """The entries whose line was not booked before; each line id once.

    An offset says nothing: a topic that is made anew has other lines at the same ones.

    Args:
        entries: In the order of the log.
        known: The line ids among them that the ledger holds.
    """
    seen = set(known)
    fresh = []
    for entry in entries:
        if entry.line.line_id not in seen:
            seen.add(entry.line.line_id)
            fresh.append(entry)
    return fresh


def fold(lines: Iterable[tuple[Line, Priced | Unpriced]]) -> dict[Cell, Sum]:
    """What some lines add to the rollup."""
    cells: dict[Cell, Sum] = defaultdict(Sum)
    for line, priced in lines:
        amounts = priced if isinstance(priced, Priced) else Priced(Decimal(0), "")
        hour_us = hour_of(line.observed_at_us)
        cell = Cell(line.tenant, line.model, line.variant, line.kind, hour_us, amounts.version)
        cells[cell] += Sum(
            amounts.amount_usd,
            1,
            line.tokens.prompt,
            line.tokens.completion,
            amounts.avoided_usd,
        )
    return dict(cells)


def group_sums(cells: Iterable[tuple[Cell, Sum]], prices: PriceTable) -> list[GroupSum]:
    """The cells added up by group and kind, in the groups' order; versions newest first."""
    kinds: dict[Group, dict[str, Sum]] = defaultdict(lambda: defaultdict(Sum))
    versions: dict[Group, set[str]] = defaultdict(set)
    unpriced: dict[Group, int] = defaultdict(int)
    for cell, amount in cells:
        # What was priced late leaves an empty cell behind.
        if not amount.lines:
            continue
        group = Group(cell.tenant, cell.model, cell.variant)
        kinds[group][cell.kind] += amount
        if cell.version:
            versions[group].add(cell.version)
        else:
            unpriced[group] += amount.lines
    return [
        GroupSum(
            group,
            dict(sorted(kinds[group].items())),
            tuple(prices.newest_first(group.model, versions[group])),
            unpriced[group],
        )
        for group in sorted(kinds)
    ]
