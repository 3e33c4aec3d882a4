"""What goes wrong, when, in which order: drawn from a seed, before anything runs."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

# A stopped process must be given up by its group: longer than the consumers' session of 10 s.
STOPPED_S = (11.0, 14.0)
STALLED_S = (3.0, 13.0)
REFUSED_S = (0.0, 3.0)
GAP_S = (0.5, 3.0)
# In the long form now and then a second fault comes before the first one is over.
OVERLAP = 0.15
OVERLAP_AFTER_S = (0.5, 6.0)

KINDS: tuple[str, ...] = (
    "pump kill",
    "pump stop",
    "engine kill",
    "engine stop",
    "ingest kill",
    "ingest stop",
    "leader kill",
    "leader stop",
    "group coordinator kill",
    "group coordinator stop",
    "transaction coordinator kill",
    "transaction coordinator stop",
    "pump add",
    "pump remove",
    "network cut",
    "network stall",
    "network half-close",
)
BROKER = ("leader", "group coordinator", "transaction coordinator")
WEIGHTS = {"pump kill": 3, "pump stop": 2, "engine kill": 2}


@dataclass(frozen=True)
class Fault:
    """A planned fault.

    Attributes:
        number: From 1, in order.
        kind: One of KINDS.
        pick: Chooses among the targets that there are, in [0, 1).
        lasts_s: How long a stop, a stall or a refusal lasts; 0 where nothing lasts.
        gap_s: Quiet time before it, after everything has recovered from the last one.
        overlaps: Whether it comes on top of the last one, without waiting for recovery.
        detail: What else the kind needs: a direction.
    """

    number: int
    kind: str
    pick: float
    lasts_s: float
    gap_s: float
    overlaps: bool = False
    detail: str = ""

    @property
    def on_broker(self) -> bool:
        """Whether it takes a node of Kafka."""
        return self.kind.rsplit(" ", 1)[0] in BROKER


def plan(
    seed: int, count: int, *, overlap: float = OVERLAP, only: Sequence[str] = KINDS
) -> list[Fault]:
    """Draws a schedule; the same arguments give the same one.

    Each kind comes once before any comes a second time, as far as `count` allows; after that they
    come by weight. No two of Kafka's nodes are away at once: that is beyond what the cluster
    promises to bear.
    """
    draw = random.Random(seed)
    kinds = _kinds(draw, count, only)
    faults: list[Fault] = []
    for number, kind in enumerate(kinds, 1):
        overlaps = len(faults) >= len(only) and draw.random() < overlap
        fault = _fault(draw, number, kind, overlaps=overlaps)
        if overlaps and (faults[-1].overlaps or (fault.on_broker and faults[-1].on_broker)):
            fault = _fault(draw, number, kind, overlaps=False)
        faults.append(fault)
    return faults


def _kinds(draw: random.Random, count: int, only: Sequence[str]) -> Sequence[str]:
    first = list(only)
    draw.shuffle(first)
    # A pump can only be taken away where one was added.
    if {"pump add", "pump remove"} <= set(first):
        add, remove = first.index("pump add"), first.index("pump remove")
        if add > remove:
            first[add], first[remove] = first[remove], first[add]
    kinds = first[:count]
    added = kinds.count("pump add") - kinds.count("pump remove")
    weights = [WEIGHTS.get(kind, 1) for kind in only]
    while len(kinds) < count:
        kind = draw.choices(only, weights)[0]
        if kind in ("pump add", "pump remove"):
            kind = "pump remove" if added else "pump add"
            added = 1 - added
        kinds.append(kind)
    return kinds


def _fault(draw: random.Random, number: int, kind: str, *, overlaps: bool) -> Fault:
    verb = kind.rsplit(" ", 1)[1]
    spans = {"stop": STOPPED_S, "stall": STALLED_S, "cut": REFUSED_S}
    details = {"stall": ("up", "down", "both"), "half-close": ("up", "down")}
    return Fault(
        number=number,
        kind=kind,
        pick=draw.random(),
        lasts_s=round(draw.uniform(*spans[verb]), 2) if verb in spans else 0.0,
        gap_s=round(draw.uniform(*(OVERLAP_AFTER_S if overlaps else GAP_S)), 2),
        overlaps=overlaps,
        detail=draw.choice(details[verb]) if verb in details else "",
    )
