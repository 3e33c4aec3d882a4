"""How the story looks: a live table on a terminal, lines elsewhere, tables at the end."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from examples.triage.story.account import Account
from examples.triage.story.chronicle import Chronicle
from examples.triage.story.traffic import HelpDesk

__all__ = ["View", "phases_table", "times_table"]

PLAIN_EVERY_S = 10.0
RECENT = 200  # answers that the accuracy of the moment is of
MOMENTS = 12  # the last ones that are shown


class View:
    """Shows how stories go on.

    Args:
        console: Where to; redrawn on a terminal, a line now and then elsewhere.
        stories: The traffic, and what the platform says, by the name of the story's model.
    """

    def __init__(self, console: Console, stories: Mapping[str, tuple[HelpDesk, Chronicle]]) -> None:
        self._console = console
        self._stories = stories
        self._begun_s = time.time()
        self._live = Live(console=console, transient=True) if console.is_terminal else None
        self._next_line_s = 0.0
        self._told = dict.fromkeys(stories, 0)

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

    def show(self) -> None:
        """Shows this moment."""
        if self._live is not None:
            self._live.update(Group(self._figures(), self._moments()))
            return
        for name, (_, chronicle) in self._stories.items():
            for moment in chronicle.moments[self._told[name] :]:
                self._say(moment.at_s, f"* {self._by(name)}{moment.what}")
            self._told[name] = len(chronicle.moments)
        if time.monotonic() >= self._next_line_s:
            self._next_line_s = time.monotonic() + PLAIN_EVERY_S
            for name in self._stories:
                line = "  ".join(f"{name} {value}" for name, value in self._now(name))
                self._say(time.time(), f"{self._by(name)}{line}")

    def _say(self, at_s: float, what: str) -> None:
        self._console.print(f"{at_s - self._begun_s:6.0f} s  {what}", markup=False, soft_wrap=True)

    def _by(self, name: str) -> str:
        """Whose it is, where that is to be told apart."""
        return f"{name}: " if len(self._stories) > 1 else ""

    def _now(self, name: str) -> list[tuple[str, str]]:
        desk, chronicle = self._stories[name]
        asked = list(desk.asked.values())
        answered = [each for each in asked if each.answers]
        recent = answered[-RECENT:]
        accuracy = sum(each.right for each in recent) / len(recent) if recent else None
        shares = chronicle.shares.items()
        return [
            ("sent", str(len(asked))),
            ("answered", str(len(answered))),
            (f"right of the last {RECENT}", "-" if accuracy is None else f"{accuracy:.0%}"),
            ("judged", str(desk.opinions)),
            ("traffic", ", ".join(f"{name} {share:.0f} %" for name, share in shares) or "-"),
            ("job", chronicle.doing or "-"),
        ]

    def _figures(self) -> Table:
        table = Table(show_header=False, title=f"{time.time() - self._begun_s:.0f} s")
        columns = [self._now(name) for name in self._stories]
        if len(columns) > 1:
            table.add_row("", *map(escape, self._stories))
        for row in zip(*columns, strict=True):
            table.add_row(row[0][0], *(escape(value) for _, value in row))
        return table

    def _moments(self) -> Table:
        table = Table(show_header=False, box=None)
        moments = sorted(
            (moment.at_s, f"{self._by(name)}{moment.what}")
            for name, (_, chronicle) in self._stories.items()
            for moment in chronicle.moments
        )
        for at_s, what in moments[-MOMENTS:]:
            table.add_row(f"{at_s - self._begun_s:.0f} s", escape(what))
        return table


def phases_table(found: Account) -> Table:
    """Accuracy by phase."""
    table = Table("phase", "seconds", "tickets", "right answers", title="accuracy")
    for each in found.phases:
        share = "-" if each.accuracy is None else f"{each.accuracy:.1%}"
        table.add_row(each.name, f"{each.seconds:.0f}", str(each.tickets), share)
    return table


def times_table(found: Account) -> Table:
    """What took how long, and what it cost."""
    table = Table("", "", title="the episode")
    for name, seconds in found.times_s.items():
        table.add_row(name, f"{seconds:.0f} s")
    table.add_row("answers judged by people", str(found.judged))
    table.add_row("billed to tenants", f"{found.usd} USD")
    table.add_row("training, shadow copies and probes", f"{found.unbilled_usd} USD")
    return table
