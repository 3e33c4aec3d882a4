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

    def to_json(self) -> dict[str, Any]:
        """JSON; `from_json` takes it back."""
        return vars(self) | {
            name: {
                topic: {str(n): at for n, at in places.items()} for topic, places in each.items()
            }
            for name, each in (("origins", self.origins), ("positions", self.positions))
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """From JSON."""
        places = {
            name: {
                topic: {int(n): at for n, at in each.items()} for topic, each in data[name].items()
            }
            for name in ("origins", "positions")
        }
        return cls(**{**data, **places})
