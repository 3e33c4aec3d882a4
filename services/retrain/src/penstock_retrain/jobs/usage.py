"""The line of the ledger that a training writes: the operator's cost, on nobody's bill. Pure."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

from penstock.v1 import usage_pb2
from penstock_retrain.jobs.states import Job, JobState

__all__ = ["TENANT", "usage_of_training"]

# Whom `penstock spend` shows it under.
TENANT = "penstock-retrain"


def usage_of_training(job: Job, at_us: int) -> usage_pb2.UsageLine | None:
    """The line for the tokens that a job's training saw, each as often as it saw it.

    The same for the same job: a repeat counts once. None where it saw none here, as of an adapter
    that was trained elsewhere.

    Args:
        job: Its training has ended.
        at_us: When, microseconds since 1970.
    """
    made = job.result(JobState.TRAINING)
    tokens = round(made.get("metrics", {}).get("tokens", 0))
    if tokens <= 0:
        return None
    line = usage_pb2.UsageLine(
        line_id=f"{job.id}/training",
        request_id=job.id,
        kind=usage_pb2.USAGE_KIND_TRAINING,
        tenant=TENANT,
        model=job.model,
        variant=str(made.get("base_model", "")),
        observed_at=Timestamp(seconds=at_us // 1_000_000, nanos=at_us % 1_000_000 * 1000),
    )
    line.usage.prompt_tokens = tokens
    return line
