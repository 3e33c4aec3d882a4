"""Where the bank stands against the best single detector of each change. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from bench.drift.contestants import BANK

__all__ = ["BEHIND", "LEAST_ARL", "Standing", "standings"]

# A single detector counts if its measured mean time to a false alarm is not below this part of the
# bank's: a lower one would have its delays for nothing. Measured on few streams, it varies.
LEAST_ARL = 0.8
MOST_MISSED = 0.05
# How many times as long is too long.
BEHIND = 1.1


class Standing(NamedTuple):
    """One change.

    Attributes:
        scenario: Its stream.
        change: Its name there.
        bank: Median delay of the bank; infinite where it is a miss.
        bank_arl: Its mean time to a false alarm; infinite where none was seen.
        best: The quickest single detector.
        best_delay: Its median delay.
        best_arl: Its mean time to a false alarm.
        interval: The 95 % interval of the ratio, of the same runs; None where it was not measured.
        behind: The single detectors that the bank is more than a tenth behind beyond chance: the
            whole interval lies above.
    """

    scenario: str
    change: str
    bank: float
    bank_arl: float
    best: str
    best_delay: float
    best_arl: float
    interval: tuple[float, float] | None
    behind: tuple[str, ...]

    @property
    def ratio(self) -> float:
        """How many times as long the bank takes."""
        return self.bank / self.best_delay


def standings(table: Mapping[str, Mapping[str, Any]], family: str = "") -> list[Standing]:
    """Of every change for which the bank and another detector were measured.

    Args:
        table: Contestants by scenario, as `matching.compare` says of each.
        family: Whose detectors the bank is compared with; everybody's if empty.
    """
    found = []
    for scenario, rows in table.items():
        bank = rows.get(BANK)
        if bank is None or bank["setting"] is None:
            continue
        for change in bank["changes"]:
            others = {
                name: row
                for name, row in rows.items()
                if name != BANK and family in ("", row["family"]) and _counts(row, bank, change)
            }
            if others:
                found.append(_standing(scenario, change, bank, others))
    return found


def _standing(
    scenario: str, change: str, bank: Mapping[str, Any], others: Mapping[str, Any]
) -> Standing:
    delays = {name: row["changes"][change]["median"] for name, row in others.items()}
    intervals = {name: _interval(row["changes"][change]) for name, row in others.items()}
    best = min(delays, key=lambda name: delays[name])
    own = bank["changes"][change]["median"]
    return Standing(
        scenario,
        change,
        math.inf if own is None else own,
        _arl(bank),
        best,
        delays[best],
        _arl(others[best]),
        intervals[best],
        tuple(name for name, each in intervals.items() if each and each[0] > BEHIND),
    )


def _interval(found: Mapping[str, Any]) -> tuple[float, float] | None:
    if "behind" not in found:
        return None
    low, high = (math.inf if each is None else each for each in found["behind"])
    return low, high


def _counts(row: Mapping[str, Any], bank: Mapping[str, Any], change: str) -> bool:
    if row["setting"] is None:
        return False
    own = row["changes"][change]
    if own["median"] is None or own["missed"] > MOST_MISSED * own["runs"]:
        return False
    return _arl(row) >= LEAST_ARL * _arl(bank)


def _arl(row: Mapping[str, Any]) -> float:
    return math.inf if row["arl"] is None else float(row["arl"])
