"""How the traffic divides over segments, as far as the evidence tells. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from penstock_drift.evidence import Entry

__all__ = ["shares_of"]


def shares_of(
    whole: Entry, segments: Mapping[str, Entry], now_ms: int
) -> dict[str, tuple[float, float]]:
    """By segment, its shares of the traffic before and since the onset, in [0, 1].

    Shares since are ratios of rates: values since each one's own onset over the time since. Of the
    time before nothing is known but the baselines' sizes, which are equal by design: the same share
    is taken, and what a change of the mix makes shows in what no segment accounts for.

    Args:
        whole: A signal over all traffic.
        segments: The same signal by segment.
        now_ms: The end of the newest tick.
    """
    all_traffic = _per_ms(whole, now_ms)
    if not all_traffic:
        return {}
    shares = {
        name: min(_per_ms(entry, now_ms) / all_traffic, 1.0) for name, entry in segments.items()
    }
    return {name: (share, share) for name, share in shares.items()}


def _per_ms(entry: Entry, now_ms: int) -> float:
    evidence = entry.evidence
    return evidence.observations_after / max(now_ms - evidence.onset_ms, 1)
