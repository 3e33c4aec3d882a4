"""The ledger: applied once whatever is repeated, exact, and priced late where its price was."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.pricing import PriceTable, Tokens, UnknownPrice, plain
from penstock.records import Partition
from penstock_cost.ledger import HOUR_US, Entry, Line, group_sums, price, recompute
from penstock_cost.spans import Span
from penstock_cost.store import LedgerStore

PRICES = PriceTable.parse(
    json.dumps(
        {
            m: {"input_cost_per_token": 1e-7, "output_cost_per_token": 4e-7, "version": "1"}
            for m in ("triage", "other")
        }
    )
)
T0 = 500_000 * HOUR_US


def line(n: int, *, model: str = "triage", tenant: str = "acme", at_us: int = T0) -> Line:
    tokens = Tokens(prompt=100 + n, cached=n % 7, completion=1 + n % 5)
    return Line(f"line-{n}", f"request-{n}", "GENERATION", tenant, model, "base", tokens, at_us)


def entry(offset: int, booked: Line, *, partition: int = 0, prices: PriceTable = PRICES) -> Entry:
    return Entry(Partition("p.usage", partition), offset, booked, price(booked, prices))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LedgerStore]:
    store = LedgerStore(f"sqlite:///{tmp_path}/ledger.sqlite")
    yield store
    store.close()


EVER = Span()


def total(
    store: LedgerStore, span: Span = EVER, tenant: str = "", model: str = ""
) -> tuple[str, int]:
    sums = group_sums(store.cells(span, tenant, model), PRICES)
    usd = sum((s.total.amount_usd for s in sums), Decimal(0))
    return plain(usd), sum(s.total.lines for s in sums)


def test_a_line_is_booked_once_wherever_it_comes_again(store: LedgerStore) -> None:
    first = [entry(0, line(0)), entry(1, line(1))]
    assert store.apply(first) == (2, 0, 0)
    assert store.apply(first) == (0, 0, 2)
    # The same line again, further on in the log, twice in a batch, and on another partition.
    assert store.apply([entry(4, line(1)), entry(5, line(2)), entry(6, line(2))]) == (1, 0, 2)
    assert store.apply([entry(0, line(2), partition=1)]) == (0, 0, 1)
    assert total(store) == (plain(recompute([line(0), line(1), line(2)], PRICES)), 3)


def test_lines_of_a_topic_that_is_made_anew_are_booked(
    store: LedgerStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock_cost.store.QUERY_IDS", 3)
    old, new = [line(n) for n in range(7)], [line(n) for n in range(7, 12)]
    assert store.apply([entry(n, one) for n, one in enumerate(old)]) == (7, 0, 0)
    # The same offsets, other lines; and what was copied from before.
    again = [entry(n, one) for n, one in enumerate([*new, *old])]
    assert store.apply(again) == (5, 0, 7)
    assert store.apply(again) == (0, 0, 12)
    assert total(store) == (plain(recompute([*old, *new], PRICES)), 12)


# For each partition in turn: how far a consumer falls back before it goes on, and how far it goes.
STEPS = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 4), st.integers(0, 5)), max_size=12)


@settings(max_examples=30, deadline=None)
@given(steps=STEPS, start=st.integers(-1, 5 * 3), length=st.integers(0, 5 * 3))
def test_any_replay_of_batches_gives_the_same_sums(
    steps: list[tuple[int, int, int]], start: int, length: int
) -> None:
    logs = {
        p: [line(p * 100 + n, tenant=f"t{p}", at_us=T0 + n * HOUR_US // 3) for n in range(12)]
        for p in (0, 1)
    }
    store = LedgerStore("sqlite://")
    reached = {0: 0, 1: 0}
    for p, back, forth in [*steps, (0, 3, 12), (1, 3, 12)]:
        begin, end = max(0, reached[p] - back), min(12, reached[p] + forth)
        store.apply([entry(n, logs[p][n], partition=p) for n in range(begin, end)])
        reached[p] = end
    everything = [one for log in logs.values() for one in log]
    assert total(store) == (plain(recompute(everything, PRICES)), len(everything))
    assert total(store, tenant="t1") == (plain(recompute(logs[1], PRICES)), 12)
    begin_us = T0 + start * HOUR_US // 3 + 1
    end_us = begin_us + length * HOUR_US // 3
    span = Span(begin_us, end_us)
    within = [one for one in everything if begin_us <= one.observed_at_us < end_us]
    assert total(store, span) == (plain(recompute(within, PRICES)), len(within))
    store.close()


def test_a_line_without_a_price_is_kept_and_priced_when_there_is_one(store: LedgerStore) -> None:
    empty = PriceTable.parse("{}")
    booked = [entry(n, line(n, model="late"), prices=empty) for n in range(3)]
    assert store.apply([*booked, entry(3, line(3))]) == (1, 3, 0)
    assert [sum_.unpriced for sum_ in group_sums(store.cells(Span(), "", ""), PRICES)] == [3, 0]
    assert store.unpriced_lines() == {"late": 3}
    (missing,) = store.to_alert()
    assert (missing.model, missing.since_us) == ("late", T0)
    store.alerted("late")
    store.apply([entry(4, line(4, model="late"), prices=empty)])
    assert (store.to_alert(), store.to_resolve()) == ([], [])

    assert store.reprice(empty) == 0
    prices = PriceTable.parse('{"late": {"input_cost_per_token": 1, "output_cost_per_token": 0.5}}')
    assert store.reprice(prices) == 4
    assert store.unpriced_lines() == {}
    assert [found.model for found in store.to_resolve()] == ["late"]
    store.resolved("late")
    assert store.to_resolve() == []
    late = [line(n, model="late") for n in (0, 1, 2, 4)]
    assert total(store, model="late") == (plain(recompute(late, prices)), 4)


def test_what_is_booked_is_there_after_a_restart(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.sqlite"
    store = LedgerStore(url)
    store.apply([entry(0, line(0))])
    store.close()
    again = LedgerStore(url)
    assert again.ledger_id == store.ledger_id
    assert again.apply([entry(0, line(0))]) == (0, 0, 1)
    assert total(again)[1] == 1
    again.close()


def test_a_binary_fraction_would_have_rounded(store: LedgerStore) -> None:
    text = '{"triage": {"input_cost_per_token": 0.1, "output_cost_per_token": 0}}'
    prices = PriceTable.parse(text)
    ones = [
        dataclasses.replace(line(n), tokens=Tokens(prompt=1, cached=0, completion=0))
        for n in range(10)
    ]
    assert sum([0.1] * 10) != 1
    store.apply([entry(n, one, prices=prices) for n, one in enumerate(ones)])
    assert total(store)[0] == "1"


def test_recompute_refuses_lines_without_a_price() -> None:
    lines: Sequence[Line] = [line(0), line(1, model="nobody")]
    with pytest.raises(UnknownPrice, match="nobody"):
        recompute(lines, PRICES)
