"""What else happened when a change began. Pure; likely causes, no proofs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from penstock_drift.findings.explain import mix_share
from penstock_drift.policy.document import SELF_TEST_MODEL
from penstock_drift.records.evidence import Entry
from penstock_drift.records.values import Kind

__all__ = ["NEAR_MS", "TRAFFIC_MIX", "Cause", "likely_causes", "near"]

# The signal of the labels that requests have.
TRAFFIC_MIX = "traffic_mix"
# Onsets are estimates: what began within a minute of each other may be one thing.
NEAR_MS = 60_000


@dataclasses.dataclass(frozen=True, slots=True)
class Cause:
    """Something that speaks for itself.

    Attributes:
        name: route_change, adapter, traffic_mix, upstream, input or unknown.
        reason: What was seen, for people.
    """

    name: str
    reason: str


def likely_causes(lead: Entry, others: Iterable[Entry]) -> tuple[Cause, ...]:
    """What speaks for a cause, most likely first; `unknown` alone where nothing does.

    Args:
        lead: The signal that leads the incident.
        others: Evidence on whatever else is suspicious now, of any model.
    """
    key, kind = lead.key, lead.evidence.kind
    at_once = [
        other
        for other in others
        # What the self-test makes up causes nothing.
        if other != lead and other.key.model != SELF_TEST_MODEL and near(lead, other)
    ]
    own = [other for other in at_once if other.key[:2] == key[:2]]
    elsewhere = sorted({other.key[:2] for other in at_once} - {key[:2]})
    found: list[Cause] = []
    found += _route_change(lead, elsewhere)
    found += _traffic_mix(own, mix_share(lead.evidence))
    found += _upstream(kind, own, elsewhere)
    if kind is not Kind.INPUT:
        found += _input(own)
    return tuple(found) or (Cause("unknown", "nothing else was seen to change at that time"),)


def near(one: Entry, other: Entry) -> bool:
    """Whether two changes may have begun together: their onset windows meet, or nearly."""
    a, b = one.evidence, other.evidence
    return (
        a.onset_earliest_ms <= b.onset_latest_ms + NEAR_MS
        and b.onset_earliest_ms <= a.onset_latest_ms + NEAR_MS
    )


def _route_change(lead: Entry, elsewhere: Sequence[object]) -> list[Cause]:
    before, after = lead.evidence.route_version_before, lead.evidence.route_version_after
    if not before or after <= before:
        return []
    alone = "" if elsewhere else "; no other model or variant changed with it"
    former, adapter = lead.evidence.adapter_before, lead.evidence.adapter_after
    if former is not None and adapter is not None and former != adapter:
        return [
            Cause(
                "adapter",
                f"{_through(adapter)} answers since route version {after}, "
                f"{_through(former)} did before{alone}",
            )
        ]
    return [
        Cause(
            "route_change",
            f"route version {after} answers since, {before} did before{alone}",
        )
    ]


def _through(adapter: str) -> str:
    return f"adapter {adapter}" if adapter else "the base model alone"


def _traffic_mix(own: Sequence[Entry], share: float) -> list[Cause]:
    if share >= 0.5:
        return [Cause("traffic_mix", f"segments' shares of the traffic make {share:.0%} of it")]
    mixed = [each for each in own if each.evidence.signal == TRAFFIC_MIX]
    if mixed:
        return [Cause("traffic_mix", "the segments' shares of the traffic changed with it")]
    return []


def _upstream(kind: Kind, own: Sequence[Entry], elsewhere: Sequence[object]) -> list[Cause]:
    slow = sorted({e.evidence.signal for e in own if e.evidence.kind is Kind.OPERATIONAL})
    if elsewhere:
        names = ", ".join("/".join(map(str, each)) for each in elsewhere[:5])  # type: ignore[call-overload]
        return [Cause("upstream", f"{names} changed with it: something that they share")]
    if kind is not Kind.OPERATIONAL and slow:
        return [Cause("upstream", f"the platform changed with it: {', '.join(slow)}")]
    return []


def _input(own: Sequence[Entry]) -> list[Cause]:
    asked = sorted(
        {e.evidence.signal for e in own if e.evidence.kind is Kind.INPUT} - {TRAFFIC_MIX}
    )
    return [Cause("input", f"what is asked changed with it: {', '.join(asked)}")] if asked else []
