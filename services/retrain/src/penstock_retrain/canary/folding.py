"""Answers and opinions become observations of a canary, each once. Pure.

Records come partition by partition, an opinion after its answer. The same records in the same
order find the same: a process that is killed folds again what it had read, and lets go of what
comes of that, to be as it was. Between two calls of `trim` it may fold answers first and opinions
after them: what is let go of depends on what is there, not on its order.
"""

from __future__ import annotations

import dataclasses
import heapq
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence

from penstock_retrain.canary.config import Arm
from penstock_retrain.canary.quantities import QUANTITIES, Answer, Opinion, Quantity, Reading

__all__ = ["Count", "Finding", "Folding", "Observation", "Pair"]

# Answers that wait for an opinion: with so many more the oldest are let go of.
MAX_ANSWERS = 50_000
MAX_CHARS = 64 * 1024 * 1024
MORE = 1.2
# Of those that were let go of, so many are known still: an opinion on one is late.
MAX_GONE = 200_000
# Conversations and users that were counted.
MAX_UNITS = 200_000


@dataclasses.dataclass(frozen=True)
class Observation:
    """Values of one answer: all metrics of one source."""

    arm: Arm
    values: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Pair:
    """Values of both arms' answers to one prompt."""

    champion: Mapping[str, float]
    candidate: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Count:
    """A unit that an arm was given, for the check of the split; see `CanaryTest.count`."""

    arm: Arm
    what: str


Finding = Observation | Pair | Count


@dataclasses.dataclass(slots=True)
class _Known:
    """What is there of a request."""

    answer: Answer | None = None
    copy: Answer | None = None
    opinion: Opinion | None = None  # the first that tells of both answers
    said: set[str] = dataclasses.field(default_factory=set)

    @property
    def both(self) -> list[Answer]:
        return [each for each in (self.answer, self.copy) if each is not None]

    @property
    def chars(self) -> int:
        return sum(len(each.text) for each in self.both)

    @property
    def since_ms(self) -> int:
        return min(each.published_ms for each in self.both)


class Folding:
    """Joins answers, copies and opinions.

    Args:
        champion: The champion's variant.
        candidate: The candidate's.
        metrics: Names of quantities.
        reading: How they are read.
        settle_ms: How old a request is when it counts for the split: by then the slower arm has
            answered, too, and the arms' shares are not of who is quicker. None where nothing is
            split: nothing is counted.
        pairs: Metrics that can be paired come in pairs alone: an opinion on an answer that has a
            copy would count twice otherwise, in its pair and by itself.

    Attributes:
        late: Opinions on answers that had been let go of: they gave no values.
    """

    def __init__(
        self,
        champion: str,
        candidate: str,
        metrics: Sequence[str],
        reading: Reading,
        settle_ms: int | None,
        *,
        pairs: bool = False,
    ) -> None:
        self._arms = {champion: Arm.CHAMPION, candidate: Arm.CANDIDATE}
        self._reading = reading
        self._settle_ms = settle_ms
        self._of_answers = _by_source(metrics, from_opinion=False)
        self._paired = {name: QUANTITIES[name] for name in metrics if QUANTITIES[name].paired}
        alone = [name for name in metrics if not pairs or name not in self._paired]
        self._of_opinions = _by_source(alone, from_opinion=True)
        self._known: dict[str, _Known] = {}
        self._chars = 0
        self._gone: OrderedDict[int, None] = OrderedDict()
        self.late = 0
        self._units: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._waiting: list[tuple[int, int, Arm, str, str, int]] = []
        self._number = 0
        self._version = 0

    def answered(self, answer: Answer) -> Iterator[Finding]:
        """A client's request has ended."""
        arm = self._arms.get(answer.variant)
        if arm is None:
            return
        if answer.cached:
            self._wait(answer, arm, "requests")
            return
        known = self._remember(answer.request_id)
        if known.answer is not None:
            return  # a repeat of what was taken
        self._wait(answer, arm, "requests")
        known.answer = answer
        self._chars += len(answer.text)
        if answer.answered or answer.failed:
            for source, quantities in self._of_answers.items():
                values = self._values(quantities, answer, None)
                if values is not None and self._first(source, answer.unit):
                    yield Observation(arm, values)
        yield from self._pair(known)

    def copied(self, copy: Answer) -> Iterator[Finding]:
        """A shadow copy has ended; one without an answer says nothing: it has the last priority."""
        if self._arms.get(copy.variant) is not Arm.CANDIDATE or not copy.answered:
            return
        known = self._remember(copy.request_id)
        if known.copy is None:
            known.copy = copy
            self._chars += len(copy.text)
            yield from self._pair(known)

    def said(self, opinion: Opinion) -> Iterator[Finding]:
        """Somebody said something of an answer; of each kind the first one counts."""
        known = self._known.get(opinion.request_id)
        if known is None or known.answer is None:
            # Of another model or variant, from before, or too late.
            self.late += hash(opinion.request_id) in self._gone
            return
        answer, arm = known.answer, self._arms[known.answer.variant]
        for source, quantities in self._of_opinions.items():
            values = self._values(quantities, answer, opinion)
            if values is None or source in known.said:
                continue
            if not known.said:
                self._wait(answer, arm, "feedback")
            known.said.add(source)
            if self._first(source, answer.unit):
                yield Observation(arm, values)
        tells = opinion.label is not None or opinion.correction is not None
        if known.opinion is None and tells:
            known.opinion = opinion
            yield from self._pair(known)

    def begin(self, version: int) -> None:
        """A traffic step begins: requests of earlier versions of the route count for none."""
        self._version = version

    def settled(self, now_ms: int) -> Iterator[Finding]:
        """Units that count for the split by now; none before the step's version is known.

        Args:
            now_ms: Everything that was on the log then has been folded.
        """
        while self._version and self._waiting and self._waiting[0][0] <= now_ms:
            _, _, arm, what, unit, version = heapq.heappop(self._waiting)
            if version >= self._version and self._first(f"{what}/{self._version}", unit):
                yield Count(arm, what)

    @property
    def full(self) -> bool:
        """Whether more waits than should."""
        return len(self._known) > MORE * MAX_ANSWERS or self._chars > MORE * MAX_CHARS

    def trim(self) -> None:
        """Lets go of the answers that wait longest, until no more wait than should.

        At a moment of the caller's, who keeps it: a process that folds again trims at the same.
        """
        oldest = sorted(self._known, key=lambda name: (self._known[name].since_ms, name))
        for name in oldest:
            if len(self._known) <= MAX_ANSWERS and self._chars <= MAX_CHARS:
                break
            known = self._known.pop(name)
            self._chars -= known.chars
            if known.answer is not None:
                self._gone[hash(name)] = None
        while len(self._gone) > MAX_GONE:
            self._gone.popitem(last=False)

    def _wait(self, answer: Answer, arm: Arm, what: str) -> None:
        if self._settle_ms is None:
            return
        self._number += 1
        due_ms = answer.published_ms + self._settle_ms
        entry = (due_ms, self._number, arm, what, answer.unit, answer.route_version)
        heapq.heappush(self._waiting, entry)

    def _pair(self, known: _Known) -> Iterator[Finding]:
        if known.answer is None or known.copy is None or known.opinion is None or not self._paired:
            return
        if self._arms[known.answer.variant] is not Arm.CHAMPION:
            return
        both = [
            self._values(self._paired, each, known.opinion) for each in (known.answer, known.copy)
        ]
        champion, candidate = both
        unit = known.answer.unit
        if champion is not None and candidate is not None and self._first("pair", unit):
            yield Pair(champion, candidate)

    def _values(
        self, quantities: Mapping[str, Quantity], answer: Answer, opinion: Opinion | None
    ) -> dict[str, float] | None:
        """All of them, or None."""
        found = {}
        for name, quantity in quantities.items():
            value = quantity.draw(answer, opinion, self._reading)
            if value is None:
                return None
            found[name] = value
        return found

    def _first(self, what: str, unit: str) -> bool:
        """Whether a unit is new: what depends on each other gives one value."""
        if not unit:
            return True
        if (what, unit) in self._units:
            return False
        self._units[what, unit] = None
        if len(self._units) > MAX_UNITS:
            self._units.popitem(last=False)
        return True

    def _remember(self, request_id: str) -> _Known:
        known = self._known.get(request_id)
        if known is None:
            known = self._known[request_id] = _Known()
        return known


def _by_source(names: Sequence[str], *, from_opinion: bool) -> dict[str, dict[str, Quantity]]:
    """Quantities whose values come together, by source."""
    found: dict[str, dict[str, Quantity]] = {}
    for name in names:
        quantity = QUANTITIES[name]
        if quantity.from_opinion is from_opinion:
            found.setdefault(quantity.source or name, {})[name] = quantity
    return found
