"""One admitted request on its way through the pump."""

from __future__ import annotations

from enum import Enum

from opentelemetry import context as trace_context
from opentelemetry import trace

from penstock.errors import PenstockError
from penstock.kafka.consumer import Delivery
from penstock.v1 import admitted_pb2, common_pb2, engine_service_pb2, route_pb2
from penstock_inference.caching.answer_cache import CacheKey
from penstock_inference.streams.pool import Lane, Work

__all__ = ["Job", "Stage"]

CHARACTERS_PER_TOKEN = 4  # of a record's bytes; bounds need a guess before the engine has counted


class Stage(Enum):
    """Where a job is."""

    WAITING = "waiting"  # for the turn of its ordering key, a route or a retry
    QUEUED = "queued"  # for an engine
    RUNNING = "running"
    ENDING = "ending"  # taken back; the engine still has to say what it used
    DONE = "done"


class Job:
    """A request, and what is decided and known about it so far.

    Attributes:
        delivery: Its record.
        item: What is sent to an engine; holds the admitted request.
        admitted: The request, as admitted.
        order: What it shares with those that it must not overtake; None for no such.
        deadline_s: In seconds since 1970.
        tokens: What it may take of an engine, at most, roughly.
        stage: Where it is.
        variant: Who answers; None until it was chosen.
        cache_key: Its name in the answer cache.
        attempt: How often work on it was begun, by dead owners too as far as known.
        failures: How often an engine gave it up without dying.
        refusals: How often there was too much to do for it.
        work: Its work at an engine.
        chunked: Whether a waiting caller may have text of it.
        observed_tokens: Tokens of its text that were seen in this attempt.
        started_s: When its last attempt began, in seconds since 1970; 0 before the first.
        verdict: Why it is ending.
        context: Its trace, where it has one.
    """

    __slots__ = (
        "admitted",
        "attempt",
        "cache_key",
        "chunked",
        "context",
        "deadline_s",
        "delivery",
        "failures",
        "item",
        "observed_tokens",
        "order",
        "refusals",
        "stage",
        "started_s",
        "tokens",
        "variant",
        "verdict",
        "work",
    )

    def __init__(self, delivery: Delivery, item: engine_service_pb2.WorkItem) -> None:
        self.delivery = delivery
        self.item = item
        self.admitted: admitted_pb2.AdmittedRequest = item.request
        request = self.admitted.request
        key = request.ordering_key
        self.order = (request.tenant, key) if key and not self.pinned else None
        deadline = self.admitted.deadline
        self.deadline_s = deadline.seconds + deadline.nanos * 1e-9
        size = len(delivery.record.value or b"")
        self.tokens = request.sampling.max_tokens + size // CHARACTERS_PER_TOKEN
        self.stage = Stage.WAITING
        self.variant: route_pb2.Variant | None = None
        self.cache_key: CacheKey | None = None
        self.attempt = delivery.deaths
        self.failures = 0
        self.refusals = 0
        self.work: Work | None = None
        self.chunked = False
        self.observed_tokens = 0
        self.started_s = 0.0
        self.verdict: PenstockError | None = None
        traced = trace.get_current_span().get_span_context().is_valid
        self.context = trace_context.get_current() if traced else None

    @property
    def pinned(self) -> bool:
        """Whether it keeps its variant, whatever the route says."""
        return self.admitted.purpose != common_pb2.PURPOSE_UNSPECIFIED

    @property
    def lane(self) -> Lane:
        """Which engines can run it."""
        assert self.variant is not None
        return self.variant.base_model, self.variant.adapter
