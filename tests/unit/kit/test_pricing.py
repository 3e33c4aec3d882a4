"""Prices: which holds when, and amounts to the last digit."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal, Inexact
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.pricing import (
    Price,
    PriceTable,
    PriceTableError,
    Tokens,
    UnknownPrice,
    add,
    cost_of,
    cost_of_training,
    plain,
)

JULY = dt.datetime(2026, 7, 1, tzinfo=dt.UTC)
ONES = '"input_cost_per_token": 1, "output_cost_per_token": 1'
TABLE = """{
  "sample_spec": {"input_cost_per_token": 0.0, "output_cost_per_token": 0.0},
  "triage": {
    "input_cost_per_token": 1e-7, "output_cost_per_token": 0.0000004,
    "cache_read_input_token_cost": 0.00000005,
    "version": "2", "effective_from": "2026-07-01T00:00:00Z",
    "earlier": [{"input_cost_per_token": 2e-7, "output_cost_per_token": 8e-7, "version": "1"}]
  },
  "plain": {"input_cost_per_token": 3, "output_cost_per_token": 0, "litellm_provider": "x"},
  "picture": {"output_cost_per_image": 0.04},
  "tiered": {
    "input_cost_per_token": 1e-7, "output_cost_per_token": 4e-7,
    "input_cost_per_token_above_200k_tokens": 2e-7
  }
}"""


@pytest.mark.parametrize(
    ("model", "when", "tokens", "expected", "version"),
    [
        ("triage", JULY, Tokens(100, 0, 10), "0.000014", "2"),
        ("triage", JULY, Tokens(100, 40, 10), "0.000012", "2"),
        ("triage", JULY - dt.timedelta(microseconds=1), Tokens(100, 0, 10), "0.000028", "1"),
        # Without a price for cached tokens they cost what others cost.
        ("triage", JULY - dt.timedelta(days=1), Tokens(100, 40, 10), "0.000028", "1"),
        ("triage", JULY, Tokens(0, 0, 0), "0", "2"),
        ("plain", JULY, Tokens(7, 0, 9), "21", None),
    ],
)
def test_cost(model: str, when: dt.datetime, tokens: Tokens, expected: str, version: str) -> None:
    price = PriceTable.parse(TABLE).at(model, when)
    assert plain(cost_of(price, tokens)) == expected
    assert price.version == version or price.version.startswith("sha256-")


def test_a_training_has_a_price_of_its_own_or_none() -> None:
    table = PriceTable.parse(
        f'{{"m": {{{ONES}, "training_cost_per_token": 8e-7}}, "free": {{{ONES}}}}}'
    )
    assert plain(cost_of_training("m", table.at("m", JULY), 1_000_003)) == "0.8000024"
    with pytest.raises(UnknownPrice, match=r"'free'.*add training_cost_per_token"):
        cost_of_training("free", table.at("free", JULY), 1)
    with pytest.raises(PriceTableError, match="m: training_cost_per_token"):
        PriceTable.parse(f'{{"m": {{{ONES}, "training_cost_per_token": -1}}}}')


@pytest.mark.parametrize("model", ["nobody", "picture", "tiered", "sample_spec"])
def test_an_unknown_price_is_an_error_that_names_model_and_remedy(model: str) -> None:
    with pytest.raises(UnknownPrice, match=f"'{model}'.*PENSTOCK_COST_PRICES"):
        PriceTable.parse(TABLE).at(model, JULY)


def test_a_time_before_the_first_version_has_no_price() -> None:
    table = PriceTable.parse(
        '{"m": {"input_cost_per_token": 1, "output_cost_per_token": 1,'
        ' "effective_from": "2026-07-01T00:00:00+02:00"}}'
    )
    with pytest.raises(UnknownPrice, match="earlier version"):
        table.at("m", JULY - dt.timedelta(hours=3))
    assert table.at("m", JULY - dt.timedelta(hours=2)).input_usd == 1


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ('{"input_cost_per_token": -1, "output_cost_per_token": 1}', "at least 0"),
        ('{"input_cost_per_token": NaN, "output_cost_per_token": 1}', "at least 0"),
        ('{"input_cost_per_token": "1", "output_cost_per_token": 1}', "at least 0"),
        (
            f'{{{ONES}, "effective_from": "2026-07-01"}}',
            "zone",
        ),
        (
            f'{{{ONES}, "version": "a", "effective_from": "2026-07-01T00:00:00Z",'
            f' "earlier": [{{{ONES}, "version": "a"}}]}}',
            "same version",
        ),
        ('{"input_cost_per_token": 1, "output_cost_per_token": 1, "earlier": 1}', "list"),
        # An earlier price that holds from later on than the newest would hold in its place.
        (
            f'{{{ONES}, "version": "b", "earlier": [{{{ONES}, "version": "a",'
            ' "effective_from": "2026-01-01T00:00:00Z"}]}',
            "m: effective_from is missing, but version a in earlier",
        ),
        (
            f'{{{ONES}, "version": "b", "effective_from": "2025-07-01T00:00:00Z",'
            f' "earlier": [{{{ONES}, "version": "a", "effective_from": "2026-01-01T00:00:00Z"}},'
            f' {{{ONES}, "version": "0"}}]}}',
            "m: effective_from is 2025-07-01 .* version a in earlier",
        ),
        (f'{{{ONES}, "input_cost_per_token": 2}}', "m: 'input_cost_per_token' is there twice"),
        (f'{{{ONES}}}, "m": {{{ONES}}}', "the price table: 'm' is there twice"),
        (
            '{"input_cost_per_token": 1e-31, "output_cost_per_token": 1}',
            "m: input_cost_per_token must be .* at most 30 decimals",
        ),
        (
            '{"input_cost_per_token": 1, "output_cost_per_token": 1e9999}',
            "m: output_cost_per_token must be .* at most 1000000",
        ),
    ],
)
def test_a_table_that_cannot_be_right_is_refused(entry: str, message: str) -> None:
    with pytest.raises(PriceTableError, match=message):
        PriceTable.parse(f'{{"m": {entry}}}')


def test_the_version_of_an_entry_without_one_follows_from_its_prices() -> None:
    def version(text: str) -> str:
        entry = f'{{"m": {{"input_cost_per_token": {text}, "output_cost_per_token": 1}}}}'
        return PriceTable.parse(entry).at("m", JULY).version

    assert version("0.1") == version("1e-1") != version("0.2")


def test_the_shipped_table_prices_the_reference_model() -> None:
    table = PriceTable.parse(Path("compose/prices.json").read_text())
    assert table.at("triage", JULY).input_usd > 0


COUNTS = st.integers(0, 2**32 - 1)
PRICES = st.decimals(0, 10, places=15)


@given(st.lists(st.tuples(COUNTS, COUNTS, PRICES, PRICES), max_size=20))
def test_sums_are_exact(lines: list[tuple[int, int, Decimal, Decimal]]) -> None:
    amounts = [
        cost_of(Price("v", None, input_usd, output_usd, input_usd), Tokens(prompt, 0, completion))
        for prompt, completion, input_usd, output_usd in lines
    ]
    exact = sum(
        (Fraction(p) * Fraction(i) + Fraction(c) * Fraction(o) for p, c, i, o in lines), Fraction()
    )
    assert Fraction(plain(add(*amounts))) == exact


def test_what_does_not_fit_raises_instead_of_rounding() -> None:
    with pytest.raises(Inexact):
        add(Decimal("1e40"), Decimal("1e-40"))


def test_tokens_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="cached"):
        Tokens(prompt=1, cached=2, completion=0)
