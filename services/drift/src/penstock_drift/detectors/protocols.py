"""What channels ask of detectors. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, TypeVar

from penstock_drift.detectors.mixture import Mixture

__all__ = ["Alarm", "EDetector", "Part", "State"]

# JSON: what `json.dumps` takes and `json.loads` gives back, with floats exact.
State = Mapping[str, Any]

T_contra = TypeVar("T_contra", contravariant=True)


class Part(NamedTuple):
    """One detector's say within the average.

    Attributes:
        detector: The detector with its parameters.
        log_evidence: Natural logarithm of its value.
    """

    detector: str
    log_evidence: float


class EDetector(Protocol[T_contra]):
    """Evidence that a signal has changed: learns its null from a baseline, then is armed.

    Attributes:
        mixture: Its value, and where the change would begin; None until it is armed.
    """

    mixture: Mixture | None

    def learn(self, value: T_contra, /) -> None:
        """Takes a value of the baseline."""
        ...

    def arm(self) -> None:
        """Fixes the null; what comes next is compared with it."""
        ...

    def update(self, value: T_contra, /) -> None:
        """Takes a value to be tested. Its cost does not grow with what it has seen."""
        ...

    def parts(self) -> tuple[Part, ...]:
        """What its detectors say, when armed."""
        ...

    def state(self) -> State:
        """All that it needs to go on."""
        ...


class Alarm(Protocol):
    """A detector of the calibrated channel."""

    @property
    def name(self) -> str:
        """The detector with its parameters."""
        ...

    @property
    def fired(self) -> bool:
        """Whether the last value made it fire; it then starts anew."""
        ...

    def update(self, value: float, /) -> None:
        """Takes a finite value."""
        ...

    def state(self) -> State:
        """All that it needs to go on."""
        ...
