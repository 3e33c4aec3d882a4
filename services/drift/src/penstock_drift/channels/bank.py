"""Makes channels of the catalogue's signals as the policy asks. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock_drift.channels.channel import SignalChannel, Watch
from penstock_drift.policy.document import Policy
from penstock_drift.signals.declared import Declaration

__all__ = ["CatalogueBank", "watch_of"]


class CatalogueBank:
    """Where a fold's channels come from.

    Args:
        catalogue: Declarations by name.
    """

    def __init__(self, catalogue: Mapping[str, Declaration]) -> None:
        self._catalogue = catalogue
        # Resolving a policy's rules is slow against making a channel, and is done for every key.
        self._watches: dict[tuple[int, str], tuple[Policy, Watch | None]] = {}

    def channel(self, signal: str, policy: Policy) -> SignalChannel | None:
        """A channel that has seen nothing; None where the signal is not known or not watched."""
        watch = self._watch(signal, policy)
        return None if watch is None else SignalChannel(self._catalogue[signal], watch)

    def restored(
        self, signal: str, policy: Policy, state: Mapping[str, Any]
    ) -> SignalChannel | None:
        """The channel of a state; None as in `channel`."""
        watch = self._watch(signal, policy)
        if watch is None:
            return None
        return SignalChannel.from_state(self._catalogue[signal], watch, state)

    def same(self, signal: str, former: Policy, policy: Policy) -> bool:
        """Whether a channel may go on under another policy: its baseline serves both."""
        old, new = self._watch(signal, former), self._watch(signal, policy)
        return old is not None and new is not None and old.same_baseline(new)

    def _watch(self, signal: str, policy: Policy) -> Watch | None:
        # The policy is kept with it: an id belongs to one object as long as that lives.
        found = self._watches.get((id(policy), signal))
        if found is None:
            declaration = self._catalogue.get(signal)
            watch = None if declaration is None else watch_of(policy, declaration)
            if len(self._watches) > 10 * max(1, len(self._catalogue)):
                self._watches.clear()
            found = self._watches[id(policy), signal] = (policy, watch)
        return found[1]


def watch_of(policy: Policy, declaration: Declaration) -> Watch | None:
    """How a policy wants a signal watched; None for not at all."""
    chosen = policy.for_signal(declaration.name)
    if not chosen.enabled:
        return None
    return Watch(
        baseline_observations=chosen.baseline_observations,
        season=chosen.season,
        season_periods=chosen.season_periods,
        block=chosen.block,
        detectors=tuple(chosen.detectors),
        thresholds={str(name): dial for name, dial in chosen.thresholds.items()},
        rebase_after=policy.rebase_after.of(declaration.kind),
    )
