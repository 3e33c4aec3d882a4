"""One key's channels: what the fold keeps of it. Pure."""

from __future__ import annotations

import dataclasses
import math
import traceback
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from penstock_drift.fold.adapters import Adapters
from penstock_drift.policy.document import Policy
from penstock_drift.records.evidence import Entry, Exemplar, SignalEvidence
from penstock_drift.records.values import Key, Observation, Value

__all__ = ["VOTES", "Bank", "KeyFold", "KeySnapshot", "Watched", "floor"]

# Calibrated detectors that have to agree: one alone is worth nothing.
VOTES = 2


class Watched(Protocol):
    """One signal of one key with its detectors; the real one is in `penstock_drift.channels`."""

    @property
    def warming(self) -> bool:
        """Whether its baseline is still being measured."""
        ...

    @property
    def log_evidence(self) -> float:
        """Natural logarithm of the average of its e-detectors' values."""
        ...

    @property
    def fired(self) -> int:
        """How many calibrated detectors have fired since the onset."""
        ...

    def update(
        self, value: Value, exemplar: Exemplar, route_version: int, segments: Sequence[str]
    ) -> None:
        """Takes the next value; what is not finite does nothing.

        Args:
            value: The value.
            exemplar: Where it comes from; its `value` is not read.
            route_version: The route that the request was admitted under; 0 where not known.
            segments: Of all traffic, the segments that the value is in.
        """
        ...

    def evidence(self) -> SignalEvidence:
        """What its detectors say."""
        ...

    def state(self) -> Mapping[str, Any]:
        """All of it, to go through JSON."""
        ...


class Bank(Protocol):
    """Where channels come from."""

    def channel(self, signal: str, policy: Policy) -> Watched | None:
        """A channel that has seen nothing; None where the signal is not known or not watched."""
        ...

    def restored(self, signal: str, policy: Policy, state: Mapping[str, Any]) -> Watched | None:
        """The channel of a state; None as in `channel`.

        Where the policy chooses the baseline otherwise than the state's did, it is measured anew
        under its next version.
        """
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class KeySnapshot:
    """A key's state.

    Attributes:
        last_ms: End of the newest tick with values.
        signals: The channels' states by signal.
        told: Signals whose evidence was above the floor when last told.
        adapters: The versions of the route at which another adapter came, with their adapters.
    """

    last_ms: int
    signals: Mapping[str, Mapping[str, Any]]
    told: frozenset[str] = frozenset()
    adapters: tuple[tuple[int, str], ...] = ()


class KeyFold:
    """The channels of one key.

    Args:
        bank: Makes them, as signals are first seen.
        policy: Says how.

    Attributes:
        last_ms: End of the newest tick with values.
        refused: Values that a channel could not take, such as one of another type, by signal and
            why; whoever reads it empties it.
    """

    def __init__(self, bank: Bank, policy: Policy) -> None:
        self.last_ms = 0
        self.refused: Counter[tuple[str, str]] = Counter()
        self._bank, self._policy, self._floor = bank, policy, floor(policy)
        # None where a signal is not watched.
        self._channels: dict[str, Watched | None] = {}
        self._told: set[str] = set()
        self._adapters = Adapters()
        self._armed = 0

    @classmethod
    def restored(cls, state: KeySnapshot, bank: Bank, policy: Policy) -> KeyFold:
        """The key of a snapshot."""
        found = cls(bank, policy)
        found.last_ms, found._told = state.last_ms, set(state.told)
        found._adapters = Adapters(state.adapters)
        for signal, saved in state.signals.items():
            found._channels[signal] = bank.restored(signal, policy, saved)
        found._count()
        return found

    @property
    def armed(self) -> int:
        """Its signals that have a baseline."""
        return self._armed

    @property
    def told(self) -> bool:
        """Whether the judge holds evidence on one of its signals that is above the floor."""
        return bool(self._told)

    def take(self, key: Key, observations: Sequence[Observation], end_ms: int) -> list[Entry]:
        """Shows a tick's observations, in their order, to the channels.

        Returns:
            What is above the floor, and what was when last told; by signal.
        """
        self.last_ms = end_ms
        seen: dict[str, int] = {}
        for observation in observations:
            exemplar = Exemplar(
                observation.request_id, observation.source, observation.time_ms, math.nan
            )
            self._adapters.note(observation.route_version, observation.adapter)
            for signal, value in observation.values.items():
                channel = self._channel(signal)
                if channel is None:
                    continue
                try:
                    channel.update(value, exemplar, observation.route_version, observation.segments)
                except Exception as error:  # noqa: BLE001 - one odd value must not stop the others
                    self.refused[signal, _where(error)] += 1
                    continue
                seen[signal] = seen.get(signal, 0) + 1
        self._count()
        return [
            Entry(key, evidence, seen[signal])
            for signal in sorted(seen)
            if (evidence := self._to_tell(signal)) is not None
        ]

    def follow(self, policy: Policy) -> None:
        """Goes on under another policy; what it chooses otherwise begins anew."""
        self._policy, self._floor = policy, floor(policy)
        self._channels = {
            # The next value makes a new one, where the signal is watched at all.
            signal: self._bank.restored(signal, policy, channel.state())
            for signal, channel in self._channels.items()
            if channel is not None
        }
        self._count()

    def snapshot(self) -> KeySnapshot:
        """Its state."""
        signals = {name: each.state() for name, each in self._channels.items() if each is not None}
        return KeySnapshot(self.last_ms, signals, frozenset(self._told), self._adapters.changes())

    def _channel(self, signal: str) -> Watched | None:
        try:
            return self._channels[signal]
        except KeyError:
            channel = self._bank.channel(signal, self._policy)
            self._channels[signal] = channel
            return channel

    def _to_tell(self, signal: str) -> SignalEvidence | None:
        channel = self._channels[signal]
        if channel is None:
            return None
        above = channel.log_evidence >= self._floor or channel.fired >= VOTES
        if not above and signal not in self._told:
            return None
        (self._told.add if above else self._told.discard)(signal)
        evidence = channel.evidence()
        return dataclasses.replace(
            evidence,
            adapter_before=self._adapters.at(evidence.route_version_before),
            adapter_after=self._adapters.at(evidence.route_version_after),
        )

    def _count(self) -> None:
        self._armed = sum(
            channel is not None and not channel.warming for channel in self._channels.values()
        )


def floor(policy: Policy) -> float:
    """The least log evidence that the judge has to hear of.

    Whatever e-BH rejects at level alpha has a value of 1 / alpha at least, among however many.
    """
    return -math.log(max(policy.alpha, policy.suspect_alpha))


def _where(error: Exception) -> str:
    """What went wrong and where; its words may be the value's, so they are left out."""
    # Not `extract_tb`: that reads the source's lines, and every value of a signal may come here.
    *_, (frame, line) = traceback.walk_tb(error.__traceback__)
    return f"{type(error).__name__} in {frame.f_code.co_name}, line {line}"
