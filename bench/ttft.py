"""What the gRPC door and all behind it add to the time to the first token of a stream."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from latency import ask_client, summary
from scripted import FIRST_TOKEN_S, WHOLE, scripted_env

from penstock_native.stack import Stack

__all__ = ["ttft"]

RATES = (10, 50, 200)
# Tokens come at a pace, as a model's do: otherwise a stream would be one burst.
TOKEN_S = 0.005
TOKENS = 16
WARM_S = 40  # see `latency.WARM_RATE`


def ttft(quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """The part `ttft`."""
    seconds, repeats = (5, 1) if quick else (30, 3)
    env = scripted_env(
        PENSTOCK_INFERENCE_SCRIPTED_TOKEN_S=str(TOKEN_S),
        PENSTOCK_INFERENCE_SCRIPTED_TOKENS=str(TOKENS),
    )
    found: dict[str, Any] = {}
    with Stack.ephemeral(WHOLE.services, env) as stack:
        _run(stack, 50, 5 if quick else WARM_S)
        for rate in RATES:
            found[str(rate)] = [_run(stack, rate, seconds) for _ in range(repeats)]
            first = found[str(rate)][-1]["first"]
            say(
                f"gRPC door at {rate}/s: first token + {first['added_p50_ms']:.1f} ms p50, "
                f"{first['added_p99_ms']:.1f} ms p99"
            )
    return found


def _run(stack: Stack, rate: float, seconds: float) -> dict[str, Any]:
    address = f"127.0.0.1:{stack.env['PENSTOCK_INGEST_GRPC_PORT']}"
    figures = ask_client("doorstep.py", address, str(rate), str(seconds))
    first, last = figures.pop("first_ms"), figures.pop("last_ms")
    if len(first) != figures["requests"]:
        raise RuntimeError(f"{len(first)} of {figures['requests']} streams had text")
    whole_s = FIRST_TOKEN_S + TOKEN_S * (TOKENS - 1)
    return {
        **figures,
        "first": summary(first, 1000 * FIRST_TOKEN_S),
        "last": summary(last, 1000 * whole_s),
    }
