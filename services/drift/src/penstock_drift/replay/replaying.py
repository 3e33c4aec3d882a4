"""Folds and judges `signals` again, from its beginning, by the code that does it live. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from penstock.v1 import drift_pb2
from penstock_drift.findings.events import Event
from penstock_drift.fold.keys import Bank
from penstock_drift.fold.partition import PartitionFold
from penstock_drift.judge.judge import Judge
from penstock_drift.records.values import Item, Observation
from penstock_drift.signals.declared import Declaration

__all__ = ["Difference", "Replay", "differences"]


class Replay:
    """A sequential fold of all partitions.

    Args:
        partitions: How many `signals` has.
        bank: Makes channels.
        declarations: The signals by name.

    Attributes:
        events: What was found so far, in order.
        observations: How many were taken.
    """

    def __init__(
        self, partitions: int, bank: Bank, declarations: Mapping[str, Declaration]
    ) -> None:
        self.events: list[Event] = []
        self.observations = 0
        self._folds = [PartitionFold(number, partitions, bank) for number in range(partitions)]
        self._judge = Judge(declarations)
        self._told = 0

    def take(self, partition: int, offset: int, item: Item) -> None:
        """Takes the record at an offset; offsets rise within a partition."""
        self.observations += isinstance(item, Observation)
        for told in self._folds[partition].apply(item, offset):
            self.events += self._judge.take(told, self._told).events
            self._told += 1


@dataclasses.dataclass(frozen=True, slots=True)
class Difference:
    """Where a replay and the topic `drift` part.

    Attributes:
        replayed: The replay's event; None where it has none.
        written: The topic's event; None where it has none.
    """

    replayed: drift_pb2.DriftEvent | None
    written: drift_pb2.DriftEvent | None


def differences(
    replayed: Sequence[drift_pb2.DriftEvent], written: Sequence[drift_pb2.DriftEvent]
) -> list[Difference]:
    """Compares events one by one, by id; all fields count, and so does a repeat."""
    left = list(replayed)
    found = []
    for event in written:
        match = next((each for each in left if each.event_id == event.event_id), None)
        if match is not None:
            left.remove(match)
        if match != event:
            found.append(Difference(match, event))
    return [*found, *(Difference(event, None) for event in left)]
