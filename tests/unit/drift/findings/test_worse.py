"""Whether a change is for the worse, where the spread changes more than the mean."""

from __future__ import annotations

import math
import random

import pytest

from penstock.v1 import drift_pb2
from penstock_drift.channels.channel import SignalChannel, Watch
from penstock_drift.findings.events import is_worse
from penstock_drift.records.evidence import Entry, Exemplar
from penstock_drift.records.evidence_wire import entry_from_wire, entry_to_wire
from penstock_drift.records.values import Key, Kind, SignalType, Source
from penstock_drift.signals.declared import Declaration

WAIT = Declaration("wait", SignalType.NUMBER, Kind.OPERATIONAL, higher_is_worse=True)


def changed_to(mean: float, deviation: float) -> Entry:
    """The evidence on a signal of mean 0 and deviation 1 that becomes another one."""
    channel, draw = SignalChannel(WAIT, Watch()), random.Random(4)
    for count in range(2800):
        value = draw.gauss(0, 1) if count < 2500 else draw.gauss(mean, deviation)
        channel.update(value, Exemplar("r", Source("responses", 0, count), count * 1000, math.nan))
    return Entry(Key("triage", "base"), channel.evidence(), 1)


@pytest.mark.parametrize(
    ("mean", "deviation", "wider", "worse"),
    [
        (-1.0, 3.0, True, False),  # shorter waits, that differ more
        (1.0, 3.0, True, True),
        (0.4, 0.2, False, True),  # longer ones, that differ less
        (-0.4, 0.2, False, False),
        (0.0, 3.0, True, None),  # neither longer nor shorter
    ],
)
def test_the_mean_says_whether_it_is_worse_when_the_spread_leads(
    mean: float, deviation: float, wider: bool, worse: bool | None
) -> None:
    entry = changed_to(mean, deviation)
    shown = max(entry.evidence.votes, key=lambda vote: vote.log_evidence)
    assert "spread" in shown.detector
    assert (entry.evidence.effect.estimate > 0) is wider
    assert is_worse(entry, {"wait": WAIT}) is worse
    written = drift_pb2.SignalEvidence.FromString(entry_to_wire(entry).SerializeToString())
    assert entry_from_wire(written) == entry


@pytest.mark.parametrize(("mean", "worse"), [(0.5, True), (-0.5, False)])
def test_the_effect_says_it_when_the_mean_leads(mean: float, worse: bool) -> None:
    entry = changed_to(mean, 1.0)
    assert entry.evidence.shift is None
    assert is_worse(entry, {"wait": WAIT}) is worse


def test_a_signal_without_a_better_is_never_worse() -> None:
    assert is_worse(changed_to(1.0, 1.0), {}) is None
