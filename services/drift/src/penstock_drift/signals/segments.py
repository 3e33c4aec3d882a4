"""Which keys a response counts for: all traffic of its variant, and segments by label. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from penstock_drift.records.values import ALL, Key
from penstock_drift.signals.facts import Answer

__all__ = ["OTHER", "Segments", "keys_of"]

# The segment of the values that are not watched on their own.
OTHER = "other"
MAX_CHARS = 64
# A value that is unseen for so long makes room for another.
UNSEEN_MS = 3_600_000


class Segments:
    """Knows which values of a label are watched.

    The first ones that come are, as many as the policy says, per label and model. Each worker
    finds out by itself; values that come often come first everywhere.
    """

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], dict[str, int]] = {}

    def of(self, answer: Answer, watched: Mapping[str, int], now_ms: int) -> tuple[str, ...]:
        """The segment of each watched label that an answer is in; `label=` where it lacks it.

        Args:
            answer: Whose labels count.
            watched: By label, how many of its values have a segment of their own.
            now_ms: Its event time.
        """
        found = []
        for label, most in watched.items():
            value = answer.labels.get(label, "")[:MAX_CHARS]
            kept = self._kept(answer.model, label, value, most, now_ms) if value else ""
            found.append(f"{label}={kept}")
        return tuple(found)

    def _kept(self, model: str, label: str, value: str, most: int, now_ms: int) -> str:
        seen = self._seen.setdefault((model, label), {})
        while len(seen) > most:
            # The policy wants fewer than before: those go that were not seen for longest.
            del seen[min(seen, key=seen.__getitem__)]
        if value not in seen and len(seen) >= most:
            oldest = min(seen, key=seen.__getitem__)
            if seen[oldest] > now_ms - UNSEEN_MS:
                return OTHER
            del seen[oldest]
        seen[value] = max(now_ms, seen.get(value, 0))
        return value


def keys_of(answer: Answer, segments: Sequence[str]) -> Iterator[Key]:
    """The keys that an answer counts for, all traffic first; a lacking label makes none."""
    yield Key(answer.model, answer.variant, ALL)
    for segment in segments:
        if segment.partition("=")[2]:
            yield Key(answer.model, answer.variant, segment)
