"""What a change is made of: its parts by segment and by signal. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from penstock_drift.evidence import Entry

__all__ = ["REST", "Contribution", "Part", "by_segment", "by_signal", "parts_of"]

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

    (Kitagawa, "Components of a difference between two rates", JASA 50, 1955, with the two terms
    centred on the whole). What the parts leave over is a segment of its own, whose shares and means
    follow by subtraction, so that nothing is lost and nothing counted twice.

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
        within = (part.share_before + part.share_after) / 2 * (part.mean_after - part.mean_before)
        mix = (part.share_after - part.share_before) * (
            (part.mean_before + part.mean_after) / 2 - centre
        )
        found.append(Contribution(part.name, within + mix, 0.0, within, mix))
    # Where the parts say more than the whole, as when their windows differ, it shows here.
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


def parts_of(segments: Iterable[Entry], shares: Mapping[str, tuple[float, float]]) -> list[Part]:
    """The segments of the label that explains most, as parts of all traffic.

    Args:
        segments: One signal in segments of several labels; labels overlap, their values do not.
        shares: By segment, its shares of the traffic before and since the onset.
    """
    by_label: dict[str, list[Part]] = {}
    for entry in segments:
        segment, evidence = entry.key.segment, entry.evidence
        if segment in shares:
            part = Part(
                segment, *shares[segment], evidence.before.estimate, evidence.after.estimate
            )
            by_label.setdefault(segment.split("=", 1)[0], []).append(part)
    return max(
        (by_label[label] for label in sorted(by_label)),
        key=lambda parts: sum(
            abs(part.mean_after - part.mean_before) * part.share_after for part in parts
        ),
        default=[],
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
