"""Whether the model declines to answer."""

from __future__ import annotations

from penstock_drift.records.values import Kind, SignalType
from penstock_drift.signals.declared import Declaration
from penstock_drift.signals.facts import Facts
from penstock_drift.signals.packs import pack

__all__ = ["SIGNALS"]


def refusal(facts: Facts) -> float | None:
    """Whether the answer begins by declining."""
    return float(pack("refusal").found_in(facts.text, facts.word_set)) if facts.text else None


SIGNALS = (
    # More of them is a nuisance and fewer may be a hole: neither direction is the worse one.
    Declaration(
        "refusal", SignalType.BINARY, Kind.OUTPUT, "Answers that decline.",
        measure=pack("refusal").version, draw=refusal,
    ),
)  # fmt: skip
