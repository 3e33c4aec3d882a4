"""What a stage that compares keeps in its job: all that a killed run needs to go on. Pure.

    {"log": "...", "origins": {"responses": {"0": 17}}, "positions": {"responses": {"0": 42}}, ...}

The test's state and how far the log was read are one value, kept in one transaction: each record
counts once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

__all__ = ["Journal", "Places"]

# By topic without prefix and partition, the offset of the next record.
Places = Mapping[str, Mapping[int, int]]


@dataclasses.dataclass(frozen=True)
class Journal:
    """Where a comparison stands.

    Attributes:
        log: The log's id: offsets of another one mean nothing.
        champion: The variant that is compared with.
        origins: Where reading began.
        positions: Where it goes on.
        trial: The test's state; `penstock_retrain.canary.trial.CanaryTest.state`.
        since_ms: When the stage began, milliseconds since 1970.
        watermark_ms: Everything that was on the log then has been folded.
        version: The route's version from which on requests are split as now; 0: not known yet.
        percent: What the candidate gets of champion's and candidate's traffic.
        before: Values of the candidate in the primary metric when the step began.
        answered: Answers of the candidate that were read: shadow copies, or clients'.
        continued: How often a person has let it go on.
        trims: Up to where the log was read when answers that waited for opinions were let go of.
    """

    log: str
    champion: str
    origins: Places
    positions: Places
    trial: Mapping[str, Any]
    since_ms: int
    watermark_ms: int = 0
    version: int = 0
    percent: float = 0.0
    before: int = 0
    answered: int = 0
    continued: int = 0
    trims: tuple[Places, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """JSON; `from_json` takes it back."""
        return vars(self) | {
            "origins": _to_json(self.origins),
            "positions": _to_json(self.positions),
            "trims": [_to_json(each) for each in self.trims],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """From JSON."""
        places = {name: _from_json(data[name]) for name in ("origins", "positions")}
        trims = tuple(_from_json(each) for each in data.get("trims", ()))
        return cls(**{**data, **places, "trims": trims})


def _to_json(places: Places) -> dict[str, dict[str, int]]:
    return {topic: {str(n): at for n, at in each.items()} for topic, each in places.items()}


def _from_json(places: Mapping[str, Mapping[str, int]]) -> dict[str, dict[int, int]]:
    return {topic: {int(n): at for n, at in each.items()} for topic, each in places.items()}
