"""Saved states of keys as the gRPC door tells them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice

from penstock.v1 import drift_pb2, drift_service_pb2
from penstock_drift.channels.bank import CatalogueBank
from penstock_drift.policy.document import Policy
from penstock_drift.records.evidence_wire import kind_to_wire, stamp
from penstock_drift.records.values import Key
from penstock_drift.signals.declared import Declaration
from penstock_drift.worker.snapshots import PROGRESS_KEY, key_state

__all__ = ["MAX_STATUSES", "SavedStatuses"]

MAX_STATUSES = 20_000


class SavedStatuses:
    """See `penstock_drift.servicer.Statuses`.

    Args:
        catalogue: Declarations by name.
        policy: Gives the policy in force.
    """

    def __init__(self, catalogue: Mapping[str, Declaration], policy: Callable[[], Policy]) -> None:
        self._catalogue = catalogue
        self._policy = policy

    def __call__(
        self,
        states: Mapping[tuple[int, bytes], bytes],
        findings: Mapping[tuple[str, str, str, str], int],
        wanted: drift_service_pb2.GetSignalsRequest,
    ) -> Sequence[drift_service_pb2.SignalStatus]:
        """Those wanted, by key and signal; a state of another form is passed over.

        At most one more than an answer may hold: nothing is decoded for a refusal.
        """
        # Of its own: the fold's must not be used from another thread.
        bank, policy = CatalogueBank(self._catalogue), self._policy()
        found = (
            status
            for (_, name), value in states.items()
            if name != PROGRESS_KEY and _may_be(name, wanted)
            for status in self._of_key(value, bank, policy, findings)
            if _is(status, wanted)
        )
        return sorted(
            islice(found, MAX_STATUSES + 1), key=lambda s: (s.model, s.variant, s.segment, s.signal)
        )

    def _of_key(
        self,
        value: bytes,
        bank: CatalogueBank,
        policy: Policy,
        findings: Mapping[tuple[str, str, str, str], int],
    ) -> Iterator[drift_service_pb2.SignalStatus]:
        decoded = key_state(value)
        if decoded is None:
            return
        key, snapshot = decoded
        for signal, state in snapshot.signals.items():
            channel = bank.restored(signal, policy, state)
            if channel is None:
                continue
            status = channel.status()
            yield drift_service_pb2.SignalStatus(
                model=key.model,
                variant=key.variant,
                segment=key.segment,
                signal=signal,
                kind=kind_to_wire(self._catalogue[signal].kind),
                state=_state(key, signal, channel.warming, findings),
                baseline_observations=status.baseline_observations,
                baseline_needed=status.baseline_needed,
                baseline_mean=status.baseline_mean,
                baseline_deviation=status.baseline_deviation,
                recent_mean=status.recent_mean,
                observations=status.observations,
                log_evidence=status.log_evidence,
                baseline=status.baseline,
                updated_at=stamp(status.updated_ms),
            )


def _state(
    key: Key, signal: str, warming: bool, findings: Mapping[tuple[str, str, str, str], int]
) -> drift_pb2.DriftState.ValueType:
    if warming:
        return drift_pb2.DRIFT_STATE_WARMING
    # Enum values are numbers.
    return findings.get((*key, signal), drift_pb2.DRIFT_STATE_ARMED)  # type: ignore[return-value]


def _may_be(name: bytes, wanted: drift_service_pb2.GetSignalsRequest) -> bool:
    # Decoding a state costs a hundred times this look.
    return name.startswith(wanted.model.encode())


def _is(
    status: drift_service_pb2.SignalStatus, wanted: drift_service_pb2.GetSignalsRequest
) -> bool:
    return (
        wanted.model in ("", status.model)
        and wanted.variant in ("", status.variant)
        and wanted.segment in ("", status.segment)
        and wanted.signal in ("", status.signal)
    )
