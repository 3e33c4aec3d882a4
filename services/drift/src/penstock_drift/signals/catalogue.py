"""All signals, in one table. A new one is a function and a declaration in the file it belongs to.

`drawn` applies it to facts.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from penstock_drift.records.values import Value
from penstock_drift.signals import (
    cost,
    feedback,
    grounding,
    language,
    lengths,
    log_probabilities,
    mix,
    refusal,
    repetition,
    safety,
    structure,
    timing,
    vocabulary,
)
from penstock_drift.signals.declared import Declaration, Origin
from penstock_drift.signals.facts import Facts
from penstock_drift.signals.topics import Embedder, HashedTrigrams, topic_signals

__all__ = ["CATALOGUE", "Catalogue", "drawn", "make_catalogue"]

Catalogue = Mapping[str, Declaration]


def make_catalogue(embedder: Embedder) -> Catalogue:
    """All signals by name, with topics by an embedder's points.

    Raises:
        ValueError: Two signals have one name.
    """
    declared = (
        *lengths.SIGNALS,
        *timing.SIGNALS,
        *cost.SIGNALS,
        *log_probabilities.SIGNALS,
        *refusal.SIGNALS,
        *structure.SIGNALS,
        *language.SIGNALS,
        *repetition.SIGNALS,
        *safety.SIGNALS,
        *vocabulary.SIGNALS,
        *topic_signals(embedder),
        *mix.SIGNALS,
        *grounding.SIGNALS,
        *feedback.SIGNALS,
    )
    catalogue = {signal.name: signal for signal in declared}
    if len(catalogue) < len(declared):
        raise ValueError("two signals have one name")
    return catalogue


CATALOGUE = make_catalogue(HashedTrigrams())


def drawn(facts: Facts, signals: Collection[Declaration]) -> dict[str, Value]:
    """What some facts say of some signals; what is not known is left out.

    Signals of feedback are drawn where there is some, and no others then: the response has been
    counted already.
    """
    values: dict[str, Value] = {}
    for signal in signals:
        if (signal.origin is Origin.FEEDBACK) is (facts.opinion is not None):
            value = signal.draw(facts)
            if value is not None:
                values[signal.name] = value
    return values
