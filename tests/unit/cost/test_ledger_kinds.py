"""The ledger by kind of work, and ledgers that were begun before there were kinds in the sums."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.pricing import PriceTable, Tokens, add, cost_of
from penstock.records import Partition
from penstock_cost.ledger import (
    HOUR_US,
    Entry,
    Line,
    Priced,
    Sum,
    Unpriced,
    billed,
    group_sums,
    price,
    recompute,
)
from penstock_cost.spans import Span
from penstock_cost.store import LedgerStore

ENTRY = {"input_cost_per_token": 1e-7, "output_cost_per_token": 4e-7, "version": "1"}
PRICES = PriceTable.parse(json.dumps({"triage": ENTRY}))
EMPTY = PriceTable.parse("{}")
T0 = 500_000 * HOUR_US
KINDS = ["GENERATION", "REPLAY", "CACHE_HIT", "SHADOW", "PROBE", "EVALUATION"]


def line(n: int, kind: str = "") -> Line:
    kind = f"USAGE_KIND_{kind or KINDS[n % len(KINDS)]}"
    tokens, none = Tokens(prompt=100 + n, cached=n % 7, completion=1 + n % 5), Tokens(0, 0, 0)
    hit = kind.endswith("CACHE_HIT")
    return Line(
        line_id=f"line-{n}",
        request_id=f"request-{n}",
        kind=kind,
        tenant="acme",
        model="triage",
        variant=f"v{n % 2}",
        tokens=none if hit else tokens,
        observed_at_us=T0 + n * HOUR_US // 3,
        avoided=tokens if hit else none,
    )


def booked(store: LedgerStore, lines: list[Line], prices: PriceTable = PRICES) -> None:
    at = Partition("p.usage", 0)
    store.apply([Entry(at, n, one, price(one, prices)) for n, one in enumerate(lines)])


def by_kind(store: LedgerStore, span: Span = Span()) -> dict[str, Sum]:  # noqa: B008
    kinds: dict[str, Sum] = {}
    for found in group_sums(store.cells(span, "", ""), PRICES):
        for kind, spent in found.kinds.items():
            kinds[kind] = kinds.get(kind, Sum()) + spent
    return kinds


def expected(lines: list[Line]) -> dict[str, Sum]:
    kinds: dict[str, Sum] = {}
    for one in lines:
        held = PRICES.at(one.model, one.observed_at)
        spent = Sum(
            cost_of(held, one.tokens),
            1,
            one.tokens.prompt,
            one.tokens.completion,
            cost_of(held, one.avoided),
        )
        kinds[one.kind] = kinds.get(one.kind, Sum()) + spent
    return kinds


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LedgerStore]:
    store = LedgerStore(f"sqlite:///{tmp_path}/ledger.sqlite")
    yield store
    store.close()


@pytest.mark.parametrize(
    ("kind", "is_billed"),
    [
        ("GENERATION", True),
        ("REPLAY", True),
        ("CACHE_HIT", True),
        ("EVALUATION", True),
        ("TRAINING", False),
        ("SHADOW", False),
        ("PROBE", False),
    ],
)
def test_copies_probes_and_trainings_are_the_operators_cost(kind: str, is_billed: bool) -> None:
    assert billed(f"USAGE_KIND_{kind}") is is_billed


def test_a_hit_is_billed_for_nothing_and_priced_for_what_it_avoided(store: LedgerStore) -> None:
    original, hit = line(1, "GENERATION"), line(1, "CACHE_HIT")
    booked(store, [hit])
    (found,) = group_sums(store.cells(Span(), "", ""), PRICES)
    assert (found.total.amount_usd, found.total.lines) == (Decimal(0), 1)
    assert found.total.avoided_usd == recompute([original], PRICES)


@settings(max_examples=40, deadline=None)
@given(
    numbers=st.lists(st.integers(0, 23), unique=True, max_size=24),
    start=st.integers(-1, 24),
    length=st.integers(0, 24),
)
def test_sums_by_kind_are_those_of_the_lines(numbers: list[int], start: int, length: int) -> None:
    store = LedgerStore("sqlite://")
    lines = [line(n) for n in numbers]
    booked(store, lines)
    assert by_kind(store) == expected(lines)
    # Edges within an hour come from lines and the rest from the rollup.
    span = Span(T0 + start * HOUR_US // 3 + 1, T0 + (start + length) * HOUR_US // 3 + 1)
    within = [one for one in lines if span[0] <= one.observed_at_us < span[1]]  # type: ignore[operator]
    assert by_kind(store, span) == expected(within)
    sums = group_sums(store.cells(Span(), "", ""), PRICES)
    assert add(*(found.total.amount_usd for found in sums)) == recompute(lines, PRICES)
    store.close()


def test_a_hit_without_a_price_is_priced_with_what_it_avoided(store: LedgerStore) -> None:
    lines = [line(n) for n in range(12)]
    booked(store, lines, EMPTY)
    assert store.unpriced_lines() == {"triage": 12}
    assert store.reprice(PRICES) == 12
    assert by_kind(store) == expected(lines)
    assert set(by_kind(store)) == {f"USAGE_KIND_{kind}" for kind in KINDS}


# As the first version made them.
OLD_TABLES = """
CREATE TABLE ledger (ledger_id VARCHAR NOT NULL, PRIMARY KEY (ledger_id));
CREATE TABLE ledger_lines (
  line_id VARCHAR NOT NULL, topic VARCHAR NOT NULL, partition INTEGER NOT NULL,
  "offset" BIGINT NOT NULL, request_id VARCHAR NOT NULL, kind VARCHAR NOT NULL,
  tenant VARCHAR NOT NULL, model VARCHAR NOT NULL, variant VARCHAR NOT NULL,
  prompt_tokens BIGINT NOT NULL, cached_prompt_tokens BIGINT NOT NULL,
  completion_tokens BIGINT NOT NULL, observed_at_us BIGINT NOT NULL,
  amount_usd VARCHAR, price_version VARCHAR, PRIMARY KEY (line_id));
CREATE TABLE spend (
  tenant VARCHAR NOT NULL, model VARCHAR NOT NULL, variant VARCHAR NOT NULL,
  hour_us BIGINT NOT NULL, version VARCHAR NOT NULL, amount_usd VARCHAR NOT NULL,
  lines BIGINT NOT NULL, prompt_tokens BIGINT NOT NULL, completion_tokens BIGINT NOT NULL,
  PRIMARY KEY (tenant, model, variant, hour_us, version));
INSERT INTO ledger VALUES ('began-long-ago');
INSERT INTO spend VALUES ('stale', 'triage', 'v', 0, '1', '9', 1, 1, 1);
"""


def old_ledger(path: Path, lines: list[Line], unpriced: Line) -> None:
    with sqlite3.connect(path) as connection:
        connection.executescript(OLD_TABLES)
        for n, one in enumerate([*lines, unpriced]):
            held = PRICES.at("triage", one.observed_at)
            amounts = (None, None) if one is unpriced else (str(cost_of(held, one.tokens)), "1")
            tokens = (one.tokens.prompt, one.tokens.cached, one.tokens.completion)
            row = (one.line_id, "p.usage", 0, n, one.request_id, one.kind, one.tenant, one.model)
            values = (*row, one.variant, *tokens, one.observed_at_us, *amounts)
            connection.execute(f"INSERT INTO ledger_lines VALUES ({','.join('?' * 15)})", values)
    connection.close()


def test_an_older_ledger_is_brought_up_to_date_once(tmp_path: Path) -> None:
    lines = [line(n, "GENERATION") for n in range(9)]
    late = line(9, "GENERATION")
    old_ledger(tmp_path / "ledger.sqlite", lines, late)
    for _ in range(2):
        store = LedgerStore(f"sqlite:///{tmp_path}/ledger.sqlite")
        assert store.ledger_id == "began-long-ago"
        assert store.unpriced_lines() == {"triage": 1}
        sums = group_sums(store.cells(Span(), "", ""), PRICES)
        assert add(*(found.total.amount_usd for found in sums)) == recompute(lines, PRICES)
        assert {found.group.tenant for found in sums} == {"acme"}
        store.close()
    store = LedgerStore(f"sqlite:///{tmp_path}/ledger.sqlite")
    assert store.reprice(PRICES) == 1
    hit = line(10, "CACHE_HIT")
    store.apply([Entry(Partition("p.usage", 0), 10, hit, price(hit, PRICES))])
    assert by_kind(store) == expected([*lines, late, hit])
    # Lines of before read as having avoided nothing, in edges too.
    assert by_kind(store, Span(T0, T0 + 1)) == expected(lines[:1])
    store.close()


def test_a_training_is_the_operators_cost_at_its_own_price(store: LedgerStore) -> None:
    trained = line(1, "TRAINING")
    assert isinstance(price(trained, PRICES), Unpriced)
    entry = {**ENTRY, "training_cost_per_token": 8e-7, "version": "2"}
    prices = PriceTable.parse(json.dumps({"triage": entry}))
    assert price(trained, prices) == Priced(Decimal("0.0000808"), "2")
    booked(store, [trained, line(2, "GENERATION")], prices)
    (found, other) = group_sums(store.cells(Span(), "", ""), prices)
    spent = {str(each.unbilled.amount_usd) for each in (found, other)}
    assert "0.0000808" in spent
    assert recompute([trained], prices) == 0
