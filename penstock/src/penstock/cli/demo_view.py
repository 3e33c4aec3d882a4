"""How the demonstration looks: a live table on a terminal, lines elsewhere, a table at the end."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from penstock.cli.demo_tally import Claim, Numbers

__all__ = ["Progress", "claims_table", "figures_table", "report"]

PLAIN_EVERY_S = 2.0


class Progress:
    """Shows a run's figures while it goes on.

    Args:
        console: Where to; a table that is redrawn on a terminal, a line now and then elsewhere.
        total: How many tickets there are.
    """

    def __init__(self, console: Console, total: int) -> None:
        self._console = console
        self._total = total
        self._live = Live(console=console, transient=True) if console.is_terminal else None
        self._next_line_s = 0.0

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, numbers: Numbers, spent_usd: str | None) -> None:
        """Shows the figures of this moment."""
        if self._live is not None:
            self._live.update(figures_table(numbers, self._total, spent_usd))
        elif time.monotonic() >= self._next_line_s:
            self._next_line_s = time.monotonic() + PLAIN_EVERY_S
            self._console.print(_line(numbers, self._total, spent_usd))


def figures_table(numbers: Numbers, total: int, spent_usd: str | None) -> Table:
    """A run's figures, one a row."""
    table = Table(show_header=False, title="penstock demo")
    for name, value in _figures(numbers, total, spent_usd):
        table.add_row(name, value)
    return table


def claims_table(claims: Sequence[Claim]) -> Table:
    """The claims with a mark for each."""
    table = Table("", "claim", "found")
    for claim in claims:
        mark = Text("✔", "bold green") if claim.holds else Text("✘", "bold red")
        table.add_row(mark, Text(claim.name), Text(claim.found))
    return table


def report(
    run_id: str, tenant: str, numbers: Numbers, claims: Sequence[Claim], usd: str | None
) -> dict[str, Any]:
    """The run as JSON-able data."""
    return {
        "run_id": run_id,
        "tenant": tenant,
        "passed": all(claim.holds for claim in claims),
        "ledger_usd": usd,
        "numbers": dataclasses.asdict(numbers),
        "claims": [dataclasses.asdict(claim) for claim in claims],
    }


def _figures(numbers: Numbers, total: int, spent_usd: str | None) -> list[tuple[str, str]]:
    return [
        ("published", f"{numbers.published} of {total}"),
        ("admitted", str(numbers.admitted)),
        ("answered", str(numbers.answered)),
        ("elapsed", f"{numbers.elapsed_s:.1f} s"),
        ("tokens", f"{numbers.completion_tokens_per_s:.0f}/s"),
        ("latency p50 / p99", f"{_s(numbers.latency_p50_s)} / {_s(numbers.latency_p99_s)}"),
        ("in the engine p50 / p99", f"{_s(numbers.engine_p50_s)} / {_s(numbers.engine_p99_s)}"),
        ("spent", "-" if spent_usd is None else f"{spent_usd} USD"),
    ]


def _line(numbers: Numbers, total: int, spent_usd: str | None) -> str:
    return "  ".join(f"{name} {value}" for name, value in _figures(numbers, total, spent_usd))


def _s(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"
