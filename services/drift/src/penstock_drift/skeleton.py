"""What is measured on a response. Pure."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["COMPLETION_TOKENS", "MEAN_LOG_PROBABILITY", "Key", "Observation", "Source"]

COMPLETION_TOKENS = "completion_tokens"
MEAN_LOG_PROBABILITY = "mean_log_probability"


class Key(NamedTuple):
    """What has a detector of its own."""

    model: str
    variant: str
    signal: str


class Source(NamedTuple):
    """Where on the log a value was drawn from."""

    topic: str
    partition: int
    offset: int


@dataclasses.dataclass(frozen=True)
class Observation:
    """The signals of one answered response.

    Attributes:
        model: The model that was asked.
        variant: The variant that answered.
        values: By signal: completion_tokens (tokens), mean_log_probability (nats per token).
        time: When the response was made.
        source: The response's record.
    """

    model: str
    variant: str
    values: Mapping[str, float]
    time: dt.datetime
    source: Source
