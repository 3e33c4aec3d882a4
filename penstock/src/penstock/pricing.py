"""What tokens cost: a versioned table of prices, and exact amounts.

The table is LiteLLM's price map (an object by model name, US dollars per token), so that its
public map can be used as it is. Ours may add to each model the price of training, the version and
the time from which its prices hold, and the earlier ones:

    {
      "triage": {
        "input_cost_per_token": 0.0000001,
        "output_cost_per_token": 0.0000004,
        "cache_read_input_token_cost": 0.00000005,
        "training_cost_per_token": 0.0000008,
        "version": "2026-07", "effective_from": "2026-07-01T00:00:00Z",
        "earlier": [{"input_cost_per_token": 0.0000002, "output_cost_per_token": 0.0000008,
                     "version": "2026-01"}]
      }
    }

The entry's own prices are the newest: beside earlier ones, which begin before, they say from when
they hold.

Nothing here rounds: amounts are products and sums of decimal numbers, and a result that does not
fit into the context's digits raises instead of losing one.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from decimal import Context, Decimal, DivisionByZero, Inexact, InvalidOperation, Overflow
from typing import Any

from penstock.errors import Code, PenstockError

__all__ = [
    "EXACT",
    "Price",
    "PriceTable",
    "PriceTableError",
    "Tokens",
    "UnknownPrice",
    "add",
    "cost_of",
    "cost_of_training",
    "plain",
]

# A token count has 10 digits: sums of 10^14 lines fit, to the last decimal of the highest price.
MAX_PRICE = 1_000_000
MAX_DECIMALS = 30
EXACT = Context(prec=60, traps=[DivisionByZero, Inexact, InvalidOperation, Overflow])

INPUT, OUTPUT = "input_cost_per_token", "output_cost_per_token"
CACHED = "cache_read_input_token_cost"
# Not in LiteLLM's map: of each token that a training sees, each time that it sees it.
TRAINING = "training_cost_per_token"
# The one entry of LiteLLM's map that is no model.
SAMPLE = "sample_spec"


class PriceTableError(Exception):
    """The price table cannot be used; the message names the model and the field."""


class UnknownPrice(PenstockError):
    """No price holds for a model at a time: never zero, always an error."""

    code = Code.ERROR_CODE_INTERNAL

    def __init__(self, model: str, remedy: str) -> None:
        super().__init__(f"no price is known for model {model!r}: {remedy}", field="model")
        self.model = model


@dataclasses.dataclass(frozen=True)
class Tokens:
    """Tokens to be paid for.

    Attributes:
        prompt: All tokens of the prompt.
        cached: Those of them that were found in the engine's prefix cache.
        completion: Tokens of the answer.
    """

    prompt: int
    cached: int
    completion: int

    def __post_init__(self) -> None:
        if not 0 <= self.cached <= self.prompt or self.completion < 0:
            raise ValueError(f"{self} counts more cached tokens than prompt tokens, or less than 0")


@dataclasses.dataclass(frozen=True)
class Price:
    """Prices of one model from a time on, in US dollars per token.

    Attributes:
        version: Names them in the ledger.
        effective_from: From when they hold; None: from ever.
        input_usd: For a prompt token.
        output_usd: For a token of the answer.
        cached_usd: For a prompt token found in the prefix cache.
        training_usd: For a token that a training sees; None where nobody said.
    """

    version: str
    effective_from: dt.datetime | None
    input_usd: Decimal
    output_usd: Decimal
    cached_usd: Decimal
    training_usd: Decimal | None = None


def cost_of(price: Price, tokens: Tokens) -> Decimal:
    """The exact price of some tokens, in US dollars."""
    return add(
        EXACT.multiply(price.input_usd, Decimal(tokens.prompt - tokens.cached)),
        EXACT.multiply(price.cached_usd, Decimal(tokens.cached)),
        EXACT.multiply(price.output_usd, Decimal(tokens.completion)),
    )


def cost_of_training(model: str, price: Price, tokens: int) -> Decimal:
    """The exact price of the tokens that a training saw, in US dollars.

    Raises:
        UnknownPrice: The model's prices have none for them.
    """
    if price.training_usd is None:
        raise UnknownPrice(
            model,
            f"its prices say nothing of training: add {TRAINING} to its entry in the price table "
            "(PENSTOCK_COST_PRICES) and restart the cost service",
        )
    return EXACT.multiply(price.training_usd, Decimal(tokens))


def add(*amounts: Decimal) -> Decimal:
    """The exact sum.

    Raises:
        decimal.Inexact: It has more digits than fit.
    """
    total = Decimal(0)
    for amount in amounts:
        total = EXACT.add(total, amount)
    return total


def plain(amount: Decimal) -> str:
    """An amount as the contracts carry it: digits without an exponent or needless zeros."""
    # Formatting and normalising would use the caller's context, which rounds to 28 digits.
    text = format(amount, "f")
    return (text.rstrip("0").rstrip(".") if "." in text else text) or "0"


class PriceTable:
    """Prices by model and time.

    Example:
        prices = PriceTable.parse(Path("compose/prices.json").read_text())
        usd = cost_of(prices.at("triage", now), Tokens(prompt=50, cached=0, completion=12))
    """

    def __init__(self, prices: Mapping[str, Iterable[Price]]) -> None:
        self._prices = {
            model: sorted(versions, key=_start, reverse=True) for model, versions in prices.items()
        }

    @classmethod
    def parse(cls, text: str) -> PriceTable:
        """Reads the JSON described above. Models that are not priced by the token are left out.

        Raises:
            PriceTableError: It is no price map, a price is no number of at least 0, a name is there
                twice, or earlier prices do not begin before the newest.
        """
        try:
            entries = json.loads(
                text,
                object_pairs_hook=_Object,
                parse_float=Decimal,
                parse_int=Decimal,
                parse_constant=str,
            )
        except json.JSONDecodeError as error:
            raise PriceTableError(f"the price table is not JSON: {error}") from error
        if not isinstance(entries, _Object) or not all(
            isinstance(entry, _Object) for entry in entries.values()
        ):
            raise PriceTableError("the price table is not an object of objects by model name")
        _refuse_twice("the price table", entries)
        return cls(
            {
                model: _versions(model, entry)
                for model, entry in entries.items()
                if model != SAMPLE and _by_token(entry)
            }
        )

    def at(self, model: str, when: dt.datetime) -> Price:
        """The prices of a model that hold at a time.

        Raises:
            UnknownPrice: There are none; the message names the model and the remedy.
        """
        versions = self._prices.get(model)
        if versions is None:
            raise UnknownPrice(
                model,
                f"add an entry with {INPUT} and {OUTPUT} to the price table "
                "(PENSTOCK_COST_PRICES) and restart the cost service",
            )
        for price in versions:
            if price.effective_from is None or price.effective_from <= when:
                return price
        raise UnknownPrice(
            model,
            f"its first price holds from {versions[-1].effective_from} on, which is after "
            f"{when}; add an earlier version to the price table and restart the cost service",
        )

    def newest_first(self, model: str, versions: Iterable[str]) -> list[str]:
        """Some version names in the table's order; those that it does not hold come last."""
        rank = {price.version: n for n, price in enumerate(self._prices.get(model, ()))}
        return sorted(set(versions), key=lambda version: (rank.get(version, len(rank)), version))


class _Object(dict[str, Any]):
    """An object of JSON that keeps which name it holds twice; JSON lets the last one win."""

    def __init__(self, pairs: Sequence[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        names = Counter(name for name, _ in pairs)
        self.twice = next((name for name, count in names.items() if count > 1), None)


def _refuse_twice(where: str, found: _Object) -> None:
    if found.twice is not None:
        raise PriceTableError(
            f"{where}: {found.twice!r} is there twice, and only one can hold; remove the other"
        )


def _start(price: Price) -> dt.datetime:
    return price.effective_from or dt.datetime.min.replace(tzinfo=dt.UTC)


def _by_token(entry: Mapping[str, Any]) -> bool:
    # Tiers (`input_cost_per_token_above_200k_tokens`) would be priced too low, so such a model
    # counts as unknown.
    return (
        INPUT in entry
        and OUTPUT in entry
        and not any(key.startswith((INPUT, OUTPUT)) and "_above_" in key for key in entry)
    )


def _versions(model: str, entry: _Object) -> list[Price]:
    earlier = entry.get("earlier", [])
    if not isinstance(earlier, list) or not all(isinstance(e, dict) for e in earlier):
        raise PriceTableError(f"{model}: earlier must be a list of objects")
    for fields in (entry, *earlier):
        _refuse_twice(model, fields)
    prices = [_price(model, fields) for fields in (entry, *earlier)]
    for what in ("version", "effective_from"):
        if len({getattr(price, what) for price in prices}) < len(prices):
            raise PriceTableError(f"{model}: two of its versions have the same {what}")
    _refuse_unordered(model, prices)
    return prices


def _refuse_unordered(model: str, prices: Sequence[Price]) -> None:
    newest, *earlier = prices
    for price in earlier:
        if _start(price) > _start(newest):
            raise PriceTableError(
                f"{model}: effective_from is {newest.effective_from or 'missing'}, but version "
                f"{price.version} in earlier holds from {price.effective_from} on and would take "
                "its place; give the newest prices an effective_from after all earlier ones"
            )


def _price(model: str, fields: Mapping[str, Any]) -> Price:
    amounts = [
        _amount(model, fields, INPUT),
        _amount(model, fields, OUTPUT),
        _amount(model, fields, CACHED if CACHED in fields else INPUT),
        *([_amount(model, fields, TRAINING)] if TRAINING in fields else []),
    ]
    # LiteLLM's entries have no version: one that follows from the prices changes with them.
    digest = hashlib.sha256(" ".join(plain(amount) for amount in amounts).encode()).hexdigest()
    return Price(
        str(fields.get("version") or f"sha256-{digest[:12]}"), _time(model, fields), *amounts
    )


def _amount(model: str, fields: Mapping[str, Any], name: str) -> Decimal:
    value = fields.get(name)
    if not isinstance(value, Decimal) or not value.is_finite() or value < 0:
        raise PriceTableError(f"{model}: {name} must be a number of at least 0, not {value!r}")
    exponent = value.as_tuple().exponent
    if value > MAX_PRICE or (isinstance(exponent, int) and exponent < -MAX_DECIMALS):
        raise PriceTableError(
            f"{model}: {name} must be USD per token, at most {MAX_PRICE} and with at most "
            f"{MAX_DECIMALS} decimals, not {value}"
        )
    return value


def _time(model: str, fields: Mapping[str, Any]) -> dt.datetime | None:
    text = fields.get("effective_from")
    if text is None:
        return None
    try:
        time = dt.datetime.fromisoformat(text)
    except (TypeError, ValueError):
        time = None
    if time is None or time.tzinfo is None:
        raise PriceTableError(f"{model}: effective_from must be a time with a zone, not {text!r}")
    return time
