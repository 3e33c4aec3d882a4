"""Limits per minute, with a clock of the test's own."""

from __future__ import annotations

import random

import pytest

from penstock_inference.engines.rates import RateLimits, TokenBucket


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    bucket = TokenBucket(per_minute=60, burst_s=10)
    times, now = [], 0.0
    for _ in range(13):
        now += bucket.wait_s(1, now)
        bucket.take(1, now)
        times.append(round(now, 6))
    assert times == [0.0] * 10 + [1.0, 2.0, 3.0]


def test_more_than_the_burst_waits_for_a_full_bucket_and_leaves_a_debt() -> None:
    bucket = TokenBucket(per_minute=600, burst_s=10)  # 100 at once, 10 a second
    assert bucket.wait_s(300, 0) == 0
    bucket.take(300, 0)
    assert bucket.wait_s(10, 0) == pytest.approx(21)
    bucket.take(-150, 0)  # it used half only
    assert bucket.wait_s(10, 0) == pytest.approx(6)


def test_a_slow_rate_lets_one_through() -> None:
    bucket = TokenBucket(per_minute=2)
    assert bucket.wait_s(1, 0) == 0
    bucket.take(1, 0)
    assert bucket.wait_s(1, 0) == pytest.approx(30)


def test_an_upstreams_own_bucket_never_refuses() -> None:
    draw = random.Random(7)
    limits = RateLimits(requests_per_minute=90, tokens_per_minute=6000)
    level, at, now = 6000.0, 0.0, 0.0  # theirs: a minute's worth at most
    for _ in range(500):
        now += draw.expovariate(2.0)
        tokens = draw.randint(1, 900)
        now += limits.wait_s(tokens, now)
        limits.take(tokens, now)
        level = min(6000.0, level + (now - at) * 100)
        at = now
        level -= tokens
        assert level >= 0


def test_the_stricter_limit_counts() -> None:
    limits = RateLimits(requests_per_minute=60, tokens_per_minute=600)
    limits.take(200, 0)
    assert limits.wait_s(10, 0) == pytest.approx(11)
    limits.settle(200, 20, 0)
    assert limits.wait_s(10, 0) == 0
    assert RateLimits(None, None).wait_s(1e9, 0) == 0


def test_the_upstreams_word_closes_the_gate() -> None:
    limits = RateLimits(None, None)
    limits.close(5, 100)
    limits.close(2, 100)
    assert limits.wait_s(1, 101) == 4
    assert limits.wait_s(1, 105) == 0
