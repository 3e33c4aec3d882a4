"""What a change is made of: its parts by segment and by signal. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from penstock_drift.records.evidence import Entry, PartTally, SignalEvidence

__all__ = ["REST", "Contribution", "Part", "by_segment", "by_signal", "mix_share", "parts_of"]

# What no watched segment accounts for.
REST = "all other traffic"


@dataclasses.dataclass(frozen=True, slots=True)
class Contribution:
    """A part of a whole.

    Attributes:
        name: A segment, or a signal.
        amount: In the unit of the whole.
        share: Of the whole; beyond [-1, 1] where parts cancel out.
        within: Of the amount, what the segment's own change makes.
        mix: Of the amount, what the change of its share of the traffic makes.
    """

    name: str
    amount: float
    share: float
    within: float = 0.0
    mix: float = 0.0


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """A segment's share of the traffic and its mean, before and after.

    Attributes:
        name: The segment.
        share_before: Of the traffic, in [0, 1].
        share_after: The same since the onset.
        mean_before: The signal's mean in it.
        mean_after: The same since the onset.
    """

    name: str
    share_before: float
    share_after: float
    mean_before: float
    mean_after: float


def by_segment(before: float, after: float, parts: Sequence[Part]) -> list[Contribution]:
    """Decomposes a change of a mean over segments; the amounts add up to `after - before`.

    Of a segment with shares p, q and means m, n the amount is within + mix,

        within = (p + q) / 2 * (n - m)
        mix    = (q - p) * ((m + n) / 2 - (before + after) / 2)

    (Kitagawa, "Components of a difference between two rates", JASA 50, 1955, with the mix centred
    on the whole, which changes no sum). What the parts leave over is a segment of its own, whose
    shares and means follow by subtraction, so that nothing is lost and nothing counted twice. A
    segment that came or went has one mean only: all of its amount is mix.

    Args:
        before: Mean of the whole before, in the signal's unit.
        after: Mean of the whole after.
        parts: Segments of one label, which do not overlap; not necessarily all.

    Returns:
        Largest amount first.
    """
    effect, centre = after - before, (before + after) / 2
    found = []
    for part in [*parts, *_rest(before, after, parts)]:
        mean_before = part.mean_before if part.share_before else part.mean_after
        mean_after = part.mean_after if part.share_after else part.mean_before
        within = (part.share_before + part.share_after) / 2 * (mean_after - mean_before)
        mix = (part.share_after - part.share_before) * ((mean_before + mean_after) / 2 - centre)
        found.append(Contribution(part.name, within + mix, 0.0, within, mix))
    # Where the parts say more than the whole, which those of `parts_of` never do, it shows here.
    over = effect - sum(each.amount for each in found)
    if abs(over) > 1e-9 * max(abs(effect), abs(before), abs(after)):
        found.append(Contribution("not accounted for", over, 0.0))
    shared = [
        dataclasses.replace(each, share=each.amount / effect if effect else 0.0) for each in found
    ]
    return sorted(shared, key=lambda each: (-abs(each.amount), each.name))


def _rest(before: float, after: float, parts: Sequence[Part]) -> list[Part]:
    share_before = 1 - sum(part.share_before for part in parts)
    share_after = 1 - sum(part.share_after for part in parts)
    if share_before <= 1e-6 or share_after <= 1e-6:
        return []
    return [
        Part(
            REST,
            share_before,
            share_after,
            (before - sum(p.share_before * p.mean_before for p in parts)) / share_before,
            (after - sum(p.share_after * p.mean_after for p in parts)) / share_after,
        )
    ]


def parts_of(evidence: SignalEvidence) -> list[Part]:
    """The segments of the label that explains most, as parts of all traffic; none if none is known.

    Counted are the very values of the signal's own means, so that shares add up to 1 and the parts
    to the whole. A label that was not watched all the while, as when the policy has named it since,
    is passed over.
    """
    by_label: dict[str, list[PartTally]] = {}
    for tally in evidence.parts:
        by_label.setdefault(tally.segment.partition("=")[0], []).append(tally)
    whole = (evidence.observations_before, evidence.observations_after)
    labels = [
        [_part(tally, *whole) for tally in tallies]
        for _, tallies in sorted(by_label.items())
        if all(whole) and (sum(t.before for t in tallies), sum(t.after for t in tallies)) == whole
    ]
    return max(labels, key=lambda parts: _telling(evidence, parts), default=[])


def mix_share(evidence: SignalEvidence) -> float:
    """Of a signal's change, what the segments' shares of the traffic make; in shares of it."""
    before, after = evidence.before.estimate, evidence.after.estimate
    if after == before:
        return 0.0
    parts = by_segment(before, after, parts_of(evidence))
    return sum(part.mix for part in parts) / (after - before)


def _part(tally: PartTally, before: int, after: int) -> Part:
    label, _, value = tally.segment.partition("=")
    return Part(
        tally.segment if value else f"no {label}",
        tally.before / before,
        tally.after / after,
        tally.total_before / tally.before if tally.before else 0.0,
        tally.total_after / tally.after if tally.after else 0.0,
    )


def _telling(evidence: SignalEvidence, parts: Sequence[Part]) -> float:
    """How far the amounts are from those of a label that has nothing to do with the change."""
    before, after = evidence.before.estimate, evidence.after.estimate
    shares = {part.name: (part.share_before + part.share_after) / 2 for part in parts}
    return sum(
        abs(each.amount - shares.get(each.name, 0.0) * (after - before))
        for each in by_segment(before, after, parts)
    )


def by_signal(entries: Iterable[Entry]) -> list[Contribution]:
    """How the evidence is spread over signals, in nats: of each its strongest key's.

    The amounts add up to the evidence of all of them.
    """
    strongest: dict[str, float] = {}
    for entry in entries:
        signal, amount = entry.evidence.signal, max(entry.evidence.log_evidence, 0.0)
        strongest[signal] = max(amount, strongest.get(signal, 0.0))
    whole = sum(strongest.values())
    found = [
        Contribution(signal, amount, amount / whole if whole else 0.0, amount)
        for signal, amount in strongest.items()
    ]
    return sorted(found, key=lambda each: (-each.amount, each.name))
