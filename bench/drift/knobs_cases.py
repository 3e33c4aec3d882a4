"""Which knobs of the triage generator are turned, and what drift has to say of each. Pure."""

from __future__ import annotations

import bisect
import dataclasses
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from examples.triage.generate import MIXES, Corpus, Rule, Ticket, Vocabulary, generate

__all__ = [
    "CASES",
    "CHANNELS",
    "DESKS",
    "Case",
    "Finding",
    "Question",
    "Schedule",
    "Stretch",
    "finding",
    "mistakes",
    "questions",
]

DESKS = ("north", "south", "west")
CHANNELS = ("mail", "chat")


@dataclasses.dataclass(frozen=True)
class Schedule:
    """How long and how fast tickets come; the same for every case.

    Attributes:
        rate: Tickets per second.
        quiet_s: How long they are as the baseline knows them.
        changed_s: How long the knob is turned then.
        feedback: The share of the answers that the right label is sent for.
        seed: Of the tickets, their labels, and of which answers get feedback.
    """

    rate: float = 60.0
    quiet_s: float = 90.0
    changed_s: float = 60.0
    feedback: float = 0.5
    seed: int = 11

    @property
    def quiet(self) -> int:
        """How many tickets come before the knob is turned."""
        return round(self.rate * self.quiet_s)

    @property
    def total(self) -> int:
        """How many tickets come."""
        return round(self.rate * (self.quiet_s + self.changed_s))


@dataclasses.dataclass(frozen=True)
class Case:
    """One knob, turned once.

    Attributes:
        name: What it is called on the command line.
        knob: The knob as the generator's own command line has it; empty for none.
        corpus: What the knob makes of the tickets.
        desk: Whose tickets it is turned for; None for all.
        kinds: Kinds of which an incident has to be open.
        allowed: Further kinds of which one may be.
        segment: What such an incident has to name first; empty where all traffic has to lead.
        why: Why this is what has to be seen.
    """

    name: str
    knob: str
    corpus: Corpus
    desk: str | None
    kinds: frozenset[str]
    allowed: frozenset[str]
    segment: str
    why: str


CASES = (
    Case(
        "control", "", Corpus(), None, frozenset(), frozenset(), "",
        "The same tickets, and no knob: nothing may be opened.",
    ),
    Case(
        "vocabulary", "--vocabulary new", Corpus(vocabulary=Vocabulary.NEW), "south",
        frozenset({"input"}), frozenset({"output", "quality"}), "desk=south",
        "Products are renamed and problems come in new words, which the model has not learnt.",
    ),
    Case(
        "rule", "--rule changed", Corpus(rule=Rule.CHANGED), "north",
        frozenset({"quality"}), frozenset(), "desk=north",
        "Texts, and so answers, are as before; what counts as right is not.",
    ),
    Case(
        "mix", "--mix incident", Corpus(mix=MIXES["incident"]), None,
        frozenset({"input"}), frozenset({"output"}), "",
        "More bugs and slowness, which the model knows: other questions, answered as well.",
    ),
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Question:
    """A ticket on its way.

    Attributes:
        number: Its place in the run.
        ticket: The ticket and its right answer.
        labels: What its request is labelled with.
        changed: Whether the knob was turned for it.
        judged: Whether its right answer is sent as feedback.
    """

    number: int
    ticket: Ticket
    labels: Mapping[str, str]
    changed: bool
    judged: bool


def questions(case: Case, schedule: Schedule) -> Iterator[Question]:
    """The tickets of a run, in order. Apart from the knob they are the same in every case."""
    base = Corpus(seed=schedule.seed)
    turned = dataclasses.replace(case.corpus, seed=schedule.seed)
    for number in range(schedule.total):
        draw = random.Random(f"{schedule.seed}/{number}")
        labels = {"desk": draw.choice(DESKS), "channel": draw.choice(CHANNELS)}
        changed = (
            bool(case.knob)
            and number >= schedule.quiet
            and (case.desk is None or labels["desk"] == case.desk)
        )
        (ticket,) = generate(turned if changed else base, 1, number)
        yield Question(number, ticket, labels, changed, draw.random() < schedule.feedback)


@dataclasses.dataclass(frozen=True)
class Finding:
    """An incident as `penstock alerts list --json` has it.

    Attributes:
        incident: Its id.
        kind: input, output, quality or operational; of another service's, its name.
        severity: How urgent it is.
        resolved: Whether it is over.
        title: What people are told.
        signals: Its signals, the one that leads first.
        lead_segment: The segment of the finding that leads; empty for all traffic.
        segments: Segments ranked: by what they add to the change.
        causes: Likely ones.
        onset_ms: When it began, as estimated.
        opened_ms: The tick at which it was opened.
    """

    incident: str
    kind: str
    severity: str
    resolved: bool
    title: str
    signals: tuple[str, ...]
    lead_segment: str
    segments: tuple[str, ...]
    causes: tuple[str, ...]
    onset_ms: int
    opened_ms: int


def finding(line: Mapping[str, Any], instant_ms: Any) -> Finding:
    """Reads an incident.

    Args:
        line: What the command wrote of it.
        instant_ms: Turns the contract's timestamps into milliseconds.
    """
    alert = line["alert"]
    drift: Mapping[str, Any] = alert.get("drift", {})
    evidence: Sequence[Mapping[str, Any]] = drift.get("evidence", ())
    kind = str(drift.get("kind", alert.get("service", "?")))
    return Finding(
        incident=line["incident"],
        kind=kind.removeprefix("DRIFT_KIND_").lower(),
        severity=line["severity"],
        resolved=line["resolved"],
        title=alert.get("title", ""),
        signals=tuple(dict.fromkeys(each["signal"] for each in evidence)),
        lead_segment=evidence[0].get("segment", "") if evidence else "",
        segments=tuple(each["name"] for each in drift.get("segments", ()) if "=" in each["name"]),
        causes=tuple(each["name"] for each in drift.get("causes", ())),
        onset_ms=instant_ms(drift["onset"]) if "onset" in drift else 0,
        opened_ms=instant_ms(alert["opened_at"]),
    )


class Stretch:
    """The responses of a run by their own time, in which delays are counted.

    Args:
        times_ms: When each was answered.
        turned_ms: When the first one was answered that the knob was turned for; None without.
    """

    def __init__(self, times_ms: Sequence[int], turned_ms: int | None) -> None:
        self._times = sorted(times_ms)
        self.turned_ms = turned_ms

    def since_turned(self, instant_ms: int) -> int | None:
        """Responses from the turn of the knob to an instant; negative for one before it."""
        if self.turned_ms is None:
            return None
        return bisect.bisect_left(self._times, instant_ms) - bisect.bisect_left(
            self._times, self.turned_ms
        )


def mistakes(case: Case, findings: Sequence[Finding], stretch: Stretch) -> list[str]:
    """What is not as it has to be; empty where all is well."""
    missing = case.kinds - {each.kind for each in findings}
    found = [f"no {kind} incident was opened" for kind in sorted(missing)]
    for each in findings:
        if each.kind not in case.kinds | case.allowed:
            found.append(f"an incident of kind {each.kind} was opened: {each.title}")
        elif stretch.turned_ms is None or each.opened_ms <= stretch.turned_ms:
            found.append(f"an incident was opened before the knob was turned: {each.title}")
        elif each.kind in case.kinds:
            found += _misplaced(case, each)
    return found


def _misplaced(case: Case, each: Finding) -> list[str]:
    if not case.segment:
        where = each.lead_segment
        return [f"{where} leads the {each.kind} incident, not all traffic"] if where else []
    first = next(iter(each.segments), "no segment")
    if first != case.segment:
        return [f"{first} is first in the {each.kind} incident, not {case.segment}"]
    return []
