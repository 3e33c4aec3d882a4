"""Admission: validate, fill in the defaults, name, choose the variant, set the deadline. Pure.

And the copies of what was admitted that shadow variants get.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import Any

from google.protobuf import timestamp_pb2

from penstock.errors import InvalidRequest
from penstock.identity import id_of_key, seed_of
from penstock.routing import RouteTable, ServedRoute, choose_variant, shadows, unit_of
from penstock.v1 import admitted_pb2, common_pb2, request_pb2, route_pb2
from penstock_ingest.admission.validation import MAX_PRIORITY, check_request, check_size
from penstock_ingest.errors import DeadlinePassed

__all__ = ["COPY_MARK", "DEFAULT_TENANT", "Admission", "Arrival", "tenant_of", "timestamp_of"]

DEFAULT_TENANT = "default"
# Between a request's id and the shadow variant that gets a copy; in no variant's name.
COPY_MARK = "~"
# Clocks differ: an instant this far ahead of the bound is still the bound.
SKEW_S = 1.0


@dataclasses.dataclass(frozen=True)
class Arrival:
    """How a request came in.

    Attributes:
        fallback_id: Its id unless it brought an idempotency key.
        published_at: When its producer published it, UTC; not after `now`.
        now: The present, UTC.
        encoding: How its response is encoded.
        reply_partition: Where a caller waits; None where nobody does.
        stream: Whether the caller wants tokens as they are made.
        source: Where it stood on `requests`; None for the other doors.
        deadline_cap: The call's own deadline, UTC: the request's is never later.
    """

    fallback_id: str
    published_at: dt.datetime
    now: dt.datetime
    encoding: admitted_pb2.Encoding.ValueType = admitted_pb2.ENCODING_PROTOBUF
    reply_partition: int | None = None
    stream: bool = False
    source: common_pb2.Coordinates | None = None
    deadline_cap: dt.datetime | None = None


@dataclasses.dataclass(frozen=True)
class Admission:
    """Decides about requests; the same request, routes and arrival give the same decision.

    Attributes:
        routes: The table of routes, which others keep up to date.
        max_request_bytes: The largest request.
        default_timeout_s: The deadline of a request that sets none.
        max_timeout_s: The farthest deadline.
        default_max_tokens: The bound of an answer that nobody bounded.
    """

    routes: RouteTable
    max_request_bytes: int = 1024 * 1024
    default_timeout_s: float = 600.0
    max_timeout_s: float = 86_400.0
    default_max_tokens: int = 256

    def admit(
        self, request: request_pb2.GenerateRequest, arrival: Arrival
    ) -> admitted_pb2.AdmittedRequest:
        """The request as it is run; the argument stays as it is.

        Raises:
            InvalidRequest: The request is at fault; names the field.
            DeadlinePassed: Its time to live ended while it was queued.
            Unavailable: Nothing is routed that could answer.
        """
        field = "prompt" if request.prompt else "messages"
        check_size(request.ByteSize(), self.max_request_bytes, field)
        check_request(request)
        filled = request_pb2.GenerateRequest()
        filled.CopyFrom(request)
        filled.tenant = tenant_of(request)
        request_id = arrival.fallback_id
        if filled.idempotency_key:
            request_id = id_of_key(filled.tenant, filled.idempotency_key)
        route = self.routes.find(filled.model)
        filled.model = route.model
        variant = choose_variant(route, unit_of(route, filled, request_id))
        self._fill_sampling(filled.sampling, variant.defaults, request_id)
        deadline = self._deadline(request, arrival)
        filled.ClearField("timeout")
        filled.deadline.CopyFrom(timestamp_of(deadline))
        return self._admitted(filled, request_id, route, variant, deadline, arrival)

    def shadows(
        self, request: request_pb2.GenerateRequest, admitted: admitted_pb2.AdmittedRequest
    ) -> list[admitted_pb2.AdmittedRequest]:
        """The copies that shadow variants get of an admitted request; mostly none.

        A copy draws with the same seed by the shadow's own defaults, keeps the deadline, runs
        after everything that clients wait for, and nobody waits for it: no reply partition, no
        stream. It has neither ordering key nor idempotency key, since it must not hold back its
        conversation's next request nor be taken for the request that the client named.

        Args:
            request: As the client sent it.
            admitted: What `admit` made of it, just now.
        """
        route = self.routes.get(admitted.request.model)
        if route is None:
            return []
        return [
            self._copy(request, admitted, variant)
            for variant in shadows(route, admitted.request_id)
        ]

    def _copy(
        self,
        request: request_pb2.GenerateRequest,
        admitted: admitted_pb2.AdmittedRequest,
        variant: route_pb2.Variant,
    ) -> admitted_pb2.AdmittedRequest:
        copy = admitted_pb2.AdmittedRequest()
        copy.CopyFrom(admitted)
        copy.request_id = f"{admitted.request_id}{COPY_MARK}{variant.name}"
        copy.origin_request_id = admitted.request_id
        copy.purpose = common_pb2.PURPOSE_SHADOW
        copy.variant = variant.name
        copy.encoding = admitted_pb2.ENCODING_PROTOBUF
        copy.ClearField("reply_partition")
        copy.stream = False
        copy.request.ordering_key = ""
        copy.request.idempotency_key = ""
        copy.request.priority = MAX_PRIORITY
        sampling = copy.request.sampling
        sampling.CopyFrom(request.sampling)
        sampling.seed = admitted.request.sampling.seed
        self._fill_sampling(sampling, variant.defaults, admitted.request_id)
        return copy

    def _fill_sampling(
        self,
        sampling: request_pb2.SamplingParameters,
        defaults: request_pb2.SamplingParameters,
        request_id: str,
    ) -> None:
        for descriptor, value in defaults.ListFields():
            name: Any = descriptor.name  # the generated stubs want literals
            if name == "stop":
                if not sampling.stop:
                    sampling.stop.extend(value)
            elif not sampling.HasField(name):
                setattr(sampling, name, value)
        if not sampling.HasField("max_tokens"):
            sampling.max_tokens = self.default_max_tokens
        if not sampling.HasField("seed"):
            sampling.seed = seed_of(request_id)

    def _deadline(self, request: request_pb2.GenerateRequest, arrival: Arrival) -> dt.datetime:
        if request.HasField("deadline") and request.HasField("timeout"):
            raise InvalidRequest("set timeout or deadline, not both", field="timeout")
        if request.HasField("deadline"):
            deadline = self._fixed_deadline(request.deadline, arrival)
        elif request.HasField("timeout"):
            deadline = arrival.published_at + self._timeout(request)
        else:
            deadline = arrival.published_at + dt.timedelta(seconds=self.default_timeout_s)
        if arrival.deadline_cap is not None:
            deadline = min(deadline, arrival.deadline_cap)
        if deadline <= arrival.now:
            raise DeadlinePassed("the deadline passed before the request was admitted")
        return deadline

    def _fixed_deadline(self, stamp: timestamp_pb2.Timestamp, arrival: Arrival) -> dt.datetime:
        try:
            deadline = stamp.ToDatetime(dt.UTC)
        except (ValueError, OverflowError) as error:
            raise InvalidRequest("it is no instant", field="deadline") from error
        if deadline <= arrival.published_at:
            raise InvalidRequest(
                f"{deadline.isoformat()} is past; set an instant to come", field="deadline"
            )
        if (deadline - arrival.now).total_seconds() > self.max_timeout_s + SKEW_S:
            raise InvalidRequest(
                f"at most {self.max_timeout_s:g} seconds ahead are allowed", field="deadline"
            )
        return deadline

    def _timeout(self, request: request_pb2.GenerateRequest) -> dt.timedelta:
        seconds = request.timeout.seconds + request.timeout.nanos / 1e9
        if not 0 < seconds <= self.max_timeout_s:
            raise InvalidRequest(
                f"it is {seconds:g} s; it must be above 0 and at most {self.max_timeout_s:g} s",
                field="timeout",
            )
        return dt.timedelta(seconds=seconds)

    @staticmethod
    def _admitted(
        request: request_pb2.GenerateRequest,
        request_id: str,
        route: ServedRoute,
        variant: route_pb2.Variant,
        deadline: dt.datetime,
        arrival: Arrival,
    ) -> admitted_pb2.AdmittedRequest:
        admitted = admitted_pb2.AdmittedRequest(
            request_id=request_id,
            request=request,
            variant=variant.name,
            route_version=route.version,
            deadline=timestamp_of(deadline),
            published_at=timestamp_of(arrival.published_at),
            admitted_at=timestamp_of(arrival.now),
            encoding=arrival.encoding,
            stream=arrival.stream,
            source=arrival.source,
        )
        if arrival.reply_partition is not None:
            admitted.reply_partition = arrival.reply_partition
        return admitted


def tenant_of(message: object) -> str:
    """The tenant that a request, feedback or query names, or the default one."""
    return getattr(message, "tenant", "") or DEFAULT_TENANT


def timestamp_of(instant: dt.datetime) -> timestamp_pb2.Timestamp:
    """An instant as the contract carries it."""
    stamp = timestamp_pb2.Timestamp()
    stamp.FromDatetime(instant)
    return stamp
