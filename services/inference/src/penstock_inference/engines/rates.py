"""Limits on requests and tokens per minute. Pure: the clock comes in with every call."""

from __future__ import annotations

__all__ = ["RateLimits", "TokenBucket"]

BURST_S = 10.0  # what was not used for so long may be used at once


class TokenBucket:
    """Amounts that come back steadily, up to a bound; a larger amount leaves a debt.

    Never more than an upstream's own bucket of the same rate holds, so that it has nothing to
    refuse (Partridge and Shenker's token bucket, RFC 1363).

    Args:
        per_minute: How much comes back in a minute.
        burst_s: The bound, in seconds of that; room for one in any case.
    """

    def __init__(self, per_minute: float, burst_s: float = BURST_S) -> None:
        self._per_s = per_minute / 60
        self._bound = max(1.0, self._per_s * burst_s)
        self._level = self._bound
        self._at_s: float | None = None

    def wait_s(self, amount: float, now_s: float) -> float:
        """How long until the amount may be taken; what exceeds the bound waits for a full one."""
        self._refill(now_s)
        return max(0.0, (min(amount, self._bound) - self._level) / self._per_s)

    def take(self, amount: float, now_s: float) -> None:
        """Takes an amount; a negative one gives back."""
        self._refill(now_s)
        self._level = min(self._bound, self._level - amount)

    def _refill(self, now_s: float) -> None:
        if self._at_s is not None:
            passed_s = max(0.0, now_s - self._at_s)
            self._level = min(self._bound, self._level + passed_s * self._per_s)
        self._at_s = now_s


class RateLimits:
    """Both limits of an upstream, and its own word on when to come again.

    Args:
        requests_per_minute: None sets no limit.
        tokens_per_minute: Prompts and answers; None sets no limit.
    """

    def __init__(self, requests_per_minute: float | None, tokens_per_minute: float | None) -> None:
        self._requests = TokenBucket(requests_per_minute) if requests_per_minute else None
        self._tokens = TokenBucket(tokens_per_minute) if tokens_per_minute else None
        self._closed_until_s = float("-inf")

    def wait_s(self, tokens: float, now_s: float) -> float:
        """How long until a request of so many tokens may go."""
        waits_s = [self._closed_until_s - now_s, 0.0]
        if self._requests is not None:
            waits_s.append(self._requests.wait_s(1, now_s))
        if self._tokens is not None:
            waits_s.append(self._tokens.wait_s(tokens, now_s))
        return max(waits_s)

    def take(self, tokens: float, now_s: float) -> None:
        """Counts a request that goes now, with the tokens that it may take at most."""
        if self._requests is not None:
            self._requests.take(1, now_s)
        if self._tokens is not None:
            self._tokens.take(tokens, now_s)

    def settle(self, taken: float, used: float, now_s: float) -> None:
        """Gives back what a request did not use of its tokens, or takes what it used beyond."""
        if self._tokens is not None:
            self._tokens.take(used - taken, now_s)

    def close(self, for_s: float, now_s: float) -> None:
        """Lets nothing through for a while: the upstream said so."""
        self._closed_until_s = max(self._closed_until_s, now_s + for_s)
