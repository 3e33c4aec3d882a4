"""Figures as people read them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scipy.stats import chi2  # type: ignore[import-untyped]  # it has no types

from bench.drift.comparison import ALL
from bench.drift.standing import Standing

__all__ = ["arl_of", "change_of", "per_run", "whole"]


def arl_of(row: Mapping[str, Any]) -> str:
    """Mean time to a false alarm, with its interval."""
    if row["arl"] is None:
        return f"more than {whole(row['arl_low'])}"
    return f"{whole(row['arl'])} ({whole(row['arl_low'])} to {whole(row['arl_high'])})"


def whole(value: float | None) -> str:
    """A number of values; a dash for none."""
    return "-" if value is None else f"{value:,.0f}"


def per_run(events: int, runs: int) -> str:
    """A mean per run's exact interval (Garwood, Biometrika 28, 1936)."""
    low = chi2.ppf(0.025, 2 * events) / 2 if events else 0.0
    high = chi2.ppf(0.975, 2 * events + 2) / 2
    return f"{low / runs:.2f} to {high / runs:.2f}"


def change_of(each: Standing) -> str:
    """A change's name for people."""
    scenario = ALL[each.scenario]
    return f"{scenario.title}: {scenario.changes[each.change]}"
