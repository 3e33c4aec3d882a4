"""What answers cost."""

from __future__ import annotations

from penstock_drift.records.values import Kind, SignalType
from penstock_drift.signals.declared import Declaration, Transform
from penstock_drift.signals.facts import Facts

__all__ = ["SIGNALS"]


def cost(facts: Facts) -> float | None:
    """Price of prompt and answer in millionths of a dollar; absent where no price is known."""
    usd = facts.answer.cost_usd
    return usd * 1e6 if facts.answered and usd is not None else None


SIGNALS = (
    Declaration(
        "cost", SignalType.NUMBER, Kind.OPERATIONAL, "Price of a request's tokens.",
        unit="microusd", transform=Transform.LOG, higher_is_worse=True, draw=cost,
    ),
)  # fmt: skip
