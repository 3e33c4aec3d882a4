"""Records as producers and ingest write them, made in advance and in large numbers."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator

from penstock.identity import seed_of
from penstock.v1 import admitted_pb2, request_pb2

__all__ = ["Shape", "admitted_records", "request_records"]

PROMPT = "Hello, I was charged twice for my subscription this month. Please refund one of them."
TIMEOUT_S = 3600


@dataclasses.dataclass(frozen=True)
class Shape:
    """What a load looks like.

    Attributes:
        tenants: Among how many tenants it is spread.
        keys: Among how many ordering keys; 0: no request has one.
        json: Whether requests are JSON instead of protobuf; admitted ones never are.
    """

    tenants: int = 1
    keys: int = 0
    json: bool = False


Made = tuple[bytes, bytes, list[tuple[str, bytes]]]  # key, value, headers


def request_records(run: str, count: int, shape: Shape) -> Iterator[Made]:
    """Records of `requests`. The idempotency key tells them apart: `RUN-NUMBER`."""
    kind = b"application/json" if shape.json else b"application/protobuf"
    headers = [("content-type", kind)]
    for number in range(count):
        name = f"{run}-{number}"
        request = _request(name, number, shape)
        key = request.ordering_key or name
        yield key.encode(), _encoded(request, as_json=shape.json), headers


def admitted_records(run: str, count: int, shape: Shape) -> Iterator[Made]:
    """Records of `admitted`, as ingest writes them. The request id is `RUN-NUMBER`."""
    headers = [
        ("content-type", b"application/protobuf"),
        ("ce_specversion", b"1.0"),
        ("ce_source", b"/penstock/bench"),
        ("ce_type", b"penstock.v1.AdmittedRequest"),
    ]
    now_s = int(time.time())
    for number in range(count):
        name = f"{run}-{number}"
        admitted = admitted_pb2.AdmittedRequest(
            request_id=name,
            request=_request(name, number, shape),
            variant="triage-base",
            route_version=1,
            encoding=admitted_pb2.ENCODING_PROTOBUF,
        )
        admitted.request.sampling.seed = seed_of(name)
        admitted.deadline.seconds = now_s + TIMEOUT_S
        admitted.published_at.seconds = admitted.admitted_at.seconds = now_s
        key = admitted.request.ordering_key or name
        yield key.encode(), admitted.SerializeToString(), [*headers, ("ce_id", name.encode())]


def _request(name: str, number: int, shape: Shape) -> request_pb2.GenerateRequest:
    request = request_pb2.GenerateRequest(
        model="triage", tenant=f"tenant-{number % shape.tenants}", idempotency_key=name
    )
    request.messages.add(role="user", content=PROMPT)
    request.sampling.max_tokens = 64
    request.sampling.temperature = 1.0
    request.timeout.seconds = TIMEOUT_S
    if shape.keys:
        request.ordering_key = f"key-{number % shape.keys}"
    return request


def _encoded(request: request_pb2.GenerateRequest, *, as_json: bool) -> bytes:
    if as_json:
        from google.protobuf import json_format

        return json_format.MessageToJson(
            request, preserving_proto_field_name=True, indent=None
        ).encode()
    return request.SerializeToString()
