"""What the story has come to: accuracy by phase, times, losses, and whether all holds. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

from examples.triage.story.chronicle import PROMOTED, Chronicle
from examples.triage.story.plot import Plot
from examples.triage.story.traffic import Asked
from penstock.cli.demo_tally import Claim

__all__ = ["Account", "Phase", "account", "claims"]

# A rollback has to take the traffic within so many seconds.
ROLLBACK_S = 2.0
# Accuracy has recovered when it is as before but for so much.
RECOVERED = 0.02


@dataclasses.dataclass(frozen=True)
class Phase:
    """A part of the story.

    Attributes:
        name: What happened in it.
        seconds: How long it was.
        tickets: How many were sent in it.
        accuracy: The share of right answers among them; None without any.
    """

    name: str
    seconds: float
    tickets: int
    accuracy: float | None


@dataclasses.dataclass(frozen=True)
class Account:
    """All figures.

    Attributes:
        phases: In order.
        times_s: What took how long, by name, seconds.
        lost: Tickets without an answer.
        doubled: Tickets with more than one.
        usd: What tenants were billed.
        unbilled_usd: What shadow copies, probes and the training cost.
        judged: Answers that somebody judged.
        end: The job's end; empty where there was none.
        straggled_s: How long after it the candidate still answered clients, seconds.
        version: Who answers in the end.
        versions: How many the registry has.
        adapters: What is in the directory that engines load them from.
    """

    phases: Sequence[Phase]
    times_s: dict[str, float]
    lost: int
    doubled: int
    usd: str
    unbilled_usd: str
    judged: int
    end: str
    straggled_s: float
    version: str
    versions: int
    adapters: Sequence[str]

    def to_json(self) -> dict[str, Any]:
        """JSON."""
        return dataclasses.asdict(self)

    def accuracy(self, name: str) -> float | None:
        """Of a phase; None where there was none of it."""
        return next((each.accuracy for each in self.phases if each.name == name), None)


BEFORE, UNNOTICED, LEARNING = "before the change", "unnoticed", "learning"
SHADOW, CANARY, AFTER = "shadow", "canary", "after"


def account(
    asked: Iterable[Asked],
    chronicle: Chronicle,
    *,
    begun_s: float,
    changed_s: float | None,
    ended_s: float,
    judged: int,
    usd: str,
    unbilled_usd: str,
    versions: int,
    adapters: Sequence[str],
    champion: str,
) -> Account:
    """Adds everything up.

    Args:
        asked: The tickets.
        chronicle: What the platform said.
        begun_s: When the first ticket was sent, seconds since 1970; likewise the others.
        changed_s: When the rule changed; None where it did not.
        ended_s: When the last ticket was sent.
        judged: Answers that somebody judged.
        usd: What tenants were billed.
        unbilled_usd: What shadow copies, probes and the training cost.
        versions: How many the registry has.
        adapters: What is in the directory that engines load them from.
        champion: The variant that answered at first.
    """
    tickets = list(asked)
    end_s = chronicle.states.get(chronicle.end) if chronicle.end else None
    marks: list[tuple[str, float | None]] = [
        (BEFORE, begun_s),
        (UNNOTICED, changed_s),
        (LEARNING, chronicle.opened_s),
        (SHADOW, chronicle.states.get("shadow")),
        (CANARY, chronicle.states.get("canary")),
        (AFTER, end_s),
    ]
    known = [(name, at_s) for name, at_s in marks if at_s is not None]
    untils = [at_s for _, at_s in known[1:]] + [ended_s]
    phases = [
        _phase(name, at_s, until_s, tickets)
        for (name, at_s), until_s in zip(known, untils, strict=True)
    ]
    return Account(
        phases=phases,
        times_s=_times(chronicle, changed_s, end_s),
        lost=sum(not each.answers for each in tickets),
        doubled=sum(each.answers > 1 for each in tickets),
        usd=usd,
        unbilled_usd=unbilled_usd,
        judged=judged,
        end=chronicle.end,
        straggled_s=_straggled_s(tickets, end_s, champion),
        versions=versions,
        adapters=adapters,
        version=max(chronicle.shares, key=lambda name: chronicle.shares[name], default=""),
    )


def _phase(name: str, from_s: float, until_s: float, tickets: Sequence[Asked]) -> Phase:
    here = [each for each in tickets if from_s <= each.sent_s < until_s]
    accuracy = sum(each.right for each in here) / len(here) if here else None
    return Phase(name, until_s - from_s, len(here), accuracy)


def _straggled_s(tickets: Sequence[Asked], end_s: float | None, champion: str) -> float:
    if end_s is None:
        return 0.0
    answered = (each.answered_s or 0.0 for each in tickets if each.variant != champion)
    return max(0.0, max(answered, default=0.0) - end_s)


def _times(chronicle: Chronicle, changed_s: float | None, end_s: float | None) -> dict[str, float]:
    states = chronicle.states
    spans = {
        "from the change to the incident": (changed_s, chronicle.opened_s),
        "to collect enough": (states.get("dataset"), states.get("training")),
        "to train": (states.get("training"), states.get("evaluating")),
        "to pass the gates": (states.get("evaluating"), states.get("shadow")),
        "in the shadow": (states.get("shadow"), states.get("canary")),
        "in the canary": (states.get("canary"), end_s),
        "from the change to the end": (changed_s, end_s),
        "from the end to the incident's": (end_s, chronicle.resolved_s),
    }
    return {
        name: until_s - from_s
        for name, (from_s, until_s) in spans.items()
        if from_s is not None and until_s is not None
    }


def claims(plot: Plot, found: Account, chronicle: Chronicle) -> list[Claim]:
    """What has to hold of a story that is over."""
    whole = [
        Claim("every ticket has an answer", found.lost == 0, f"{found.lost} have none"),
        Claim("no ticket has two", found.doubled == 0, f"{found.doubled} have"),
        _tidy(found),
    ]
    if not plot.changes:
        quiet = chronicle.opened_s is None and not chronicle.jobs
        jobs = f"jobs: {len(chronicle.jobs)}, incident: {chronicle.opened_s is not None}"
        return [*whole, Claim("nothing happens where nothing changed", quiet, jobs)]
    detected = Claim(
        "the change is found",
        chronicle.opened_s is not None,
        _seconds(found.times_s.get("from the change to the incident")),
    )
    if plot.bad:
        return [*whole, detected, *_kept_away(plot, found, chronicle)]
    before, after = found.accuracy(BEFORE), found.accuracy(AFTER)
    recovered = before is not None and after is not None and after >= before - RECOVERED
    return [
        *whole,
        detected,
        Claim("a new version is promoted", found.end == PROMOTED, found.end or "no end"),
        Claim(
            f"accuracy is as before, but for {RECOVERED:.0%}",
            recovered,
            f"{_share(before)} before, {_share(after)} after",
        ),
        Claim(
            "the incident is resolved",
            chronicle.resolved_s is not None,
            _seconds(found.times_s.get("from the end to the incident's")),
        ),
    ]


def _tidy(found: Account) -> Claim:
    """A job makes one version, however often it is begun again, and its adapter stays or goes."""
    stays = found.end in (PROMOTED, "inconclusive")
    tidy = found.versions == bool(found.end) and len(found.adapters) == stays
    says = f"versions: {found.versions}, adapters: {', '.join(found.adapters) or 'none'}"
    return Claim("a job makes one version, and no adapter is left over", tidy, says)


def _kept_away(plot: Plot, found: Account, chronicle: Chronicle) -> list[Claim]:
    # Of answers that are played back, five points fewer are right: where the canary cannot tell
    # that in its time, it holds and asks.
    ends = ["rolled_back", *(["inconclusive"] if plot.adapter else [])]
    kept = found.end in ends and found.version == plot.champion
    name = f"the bad candidate is {' or '.join(ends)}".replace("_", " ")
    claims = [Claim(name, kept, f"{found.end or 'no end'}: {chronicle.reason}")]
    if found.end != "inconclusive":
        gone = found.straggled_s <= ROLLBACK_S
        says = f"its last answer came {found.straggled_s:.2f} s after"
        claims.append(Claim(f"within {ROLLBACK_S:g} s it answers nobody", gone, says))
    return claims


def _seconds(value: float | None) -> str:
    return "never" if value is None else f"after {value:.0f} s"


def _share(value: float | None) -> str:
    return "nothing" if value is None else f"{value:.1%}"
