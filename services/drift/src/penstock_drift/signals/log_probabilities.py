"""How sure the model is of its words.

The record holds log-probabilities of the tokens that were drawn, not whole distributions. Where
tokens are drawn at temperature 1 the mean, negated, is an unbiased estimate of the distributions'
mean entropy; a signal of its own would say the same again, and cost evidence among all signals.
"""

from __future__ import annotations

from penstock_drift.records.values import Kind, SignalType
from penstock_drift.signals.declared import Declaration
from penstock_drift.signals.facts import Facts

__all__ = ["SIGNALS"]


def mean(facts: Facts) -> float | None:
    """Of the answer's tokens."""
    return facts.answer.mean_log_probability if facts.answered else None


def minimum(facts: Facts) -> float | None:
    """Of the answer's least likely token."""
    return facts.answer.minimum_log_probability if facts.answered else None


SIGNALS = (
    Declaration(
        "mean_log_probability", SignalType.NUMBER, Kind.OUTPUT,
        "Mean log-probability of the answer's tokens; negated, an estimate of their entropy.",
        unit="nats/token", draw=mean,
    ),
    Declaration(
        "minimum_log_probability", SignalType.NUMBER, Kind.OUTPUT,
        "Log-probability of the answer's least likely token.",
        unit="nats", draw=minimum,
    ),
)  # fmt: skip
