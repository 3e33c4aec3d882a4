"""The lines of the ledger that a training writes: the operator's cost, on nobody's bill. Pure."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

from penstock.v1 import common_pb2, usage_pb2
from penstock_retrain.jobs.states import Job, JobState

__all__ = ["TENANT", "usage_of_training"]

# Whom `penstock spend` shows it under.
TENANT = "penstock-retrain"
# A line counts up to here (uint32); a training of more tokens has several lines.
MOST_TOKENS = 2**32 - 1
# No training is longer: what counts more counts wrong.
MOST_LINES = 1000


def usage_of_training(job: Job, at_us: int) -> list[usage_pb2.UsageLine]:
    """The lines for the tokens that a job's training saw, each as often as it saw it.

    The same for the same job: a repeat counts once. Prices are exact, so several lines cost what
    one would. None where it saw none here, as of an adapter that was trained elsewhere.

    Args:
        job: Its training has ended.
        at_us: When, microseconds since 1970.

    Raises:
        ValueError: Nobody can have trained on so many tokens.
    """
    made = job.result(JobState.TRAINING)
    tokens = max(0, round(made.get("metrics", {}).get("tokens", 0)))
    if tokens > MOST_LINES * MOST_TOKENS:
        raise ValueError(f"a training cannot have seen {tokens} tokens")
    return [
        usage_pb2.UsageLine(
            line_id=f"{job.id}/training" if number == 1 else f"{job.id}/training/{number}",
            request_id=job.id,
            kind=usage_pb2.USAGE_KIND_TRAINING,
            tenant=TENANT,
            model=job.model,
            variant=str(made.get("base_model", "")),
            usage=common_pb2.Usage(prompt_tokens=min(MOST_TOKENS, tokens - told)),
            observed_at=Timestamp(seconds=at_us // 1_000_000, nanos=at_us % 1_000_000 * 1000),
        )
        for number, told in enumerate(range(0, tokens, MOST_TOKENS), 1)
    ]
