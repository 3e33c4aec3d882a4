"""Ingest's doors over a log and an engine in memory."""

from __future__ import annotations

import asyncio
import datetime as dt
import zlib
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import pytest

from penstock.codec import decode, encode
from penstock.errors import Code
from penstock.kafka.ports import LogError
from penstock.measures import Measures
from penstock.records import Outgoing, Partition, Record
from penstock.routing import RouteTable
from penstock.rpc.channel import open_channel
from penstock.rpc.server import Server, Service
from penstock.v1 import (
    admitted_pb2,
    common_pb2,
    control_pb2,
    feedback_pb2,
    inference_service_pb2_grpc,
    response_pb2,
    route_pb2,
)
from penstock_ingest.admission.pipeline import Admission
from penstock_ingest.admission.quota import TenantQuota
from penstock_ingest.admission.shedding import Shedding
from penstock_ingest.desk import Desk
from penstock_ingest.doors.http import make_http
from penstock_ingest.doors.servicer import SERVICE_NAME, InferenceServicer
from penstock_ingest.doors.web import WebServer
from penstock_ingest.health.board import Board, Key, Policy
from penstock_ingest.health.readiness import Readiness
from penstock_ingest.log_view import LogView
from penstock_ingest.waiting.index import KnownIds, ResponseIndex
from penstock_ingest.waiting.waiters import Waiters

Stub: TypeAlias = "inference_service_pb2_grpc.InferenceAsyncStub"

ERRORS = {
    "context": (response_pb2.OUTCOME_REJECTED, Code.ERROR_CODE_CONTEXT_LENGTH_EXCEEDED, "prompt"),
    "unavailable": (response_pb2.OUTCOME_FAILED, Code.ERROR_CODE_UNAVAILABLE, ""),
    "cancelled": (response_pb2.OUTCOME_CANCELLED, Code.ERROR_CODE_CANCELLED, ""),
    "break": (response_pb2.OUTCOME_FAILED, Code.ERROR_CODE_INTERNAL, ""),
}
RETURN_S = 0.1
ANSWER = "You said: {}. That is all there is to say."


class Platform:
    """What stands behind the doors. The request's last text says what happens to it.

    A key of ERRORS ends it so (`break` after some text); `silent` is never answered, and `endless`
    not after its text, unless it is cancelled; `lossy` loses a chunk; `again` is run twice with the
    same text and `diverge` with another; `unwritten` does not get onto the log. Everything else is
    echoed.
    """

    def __init__(self) -> None:
        self.admitted: list[admitted_pb2.AdmittedRequest] = []
        self.cancelled: list[admitted_pb2.Cancellation] = []
        self.feedback: list[tuple[bytes | None, feedback_pb2.Feedback]] = []
        self.routes = RouteTable()
        self.waiters = Waiters(8)
        self.index = ResponseIndex(3600, 1 << 20)
        known = KnownIds(3600)
        self.quota = TenantQuota(20)
        self.measures = Measures()
        self.view = LogView(
            routes=self.routes,
            waiters=self.waiters,
            index=self.index,
            known=known,
            quota=self.quota,
            clock=_now,
        )
        self.desk = Desk(
            admission=Admission(self.routes, max_request_bytes=100_000),
            waiters=self.waiters,
            index=self.index,
            known=known,
            quota=self.quota,
            publisher=self,
            topic_prefix="penstock",
            reply_partition=0,
            clock=_now,
            return_s=RETURN_S,
            shedding=Shedding(self.measures),
        )
        self.desk.closed = ""
        self.writing = asyncio.Event()  # until it is set, what fails to be written hangs
        self.writing.set()
        self.route("triage")
        self._running: set[asyncio.Task[None]] = set()
        self.board = Board(Policy())
        self.board.follow(self.routes.models(), 0.0)
        self.board.answered(Key("triage", "triage-base"), _now(), 0.0)
        self._readiness = Readiness(
            self.desk, self.routes, self.board, _yes, _heard, timer=lambda: 0.0
        )

    def health(self) -> Mapping[str, Any]:
        return self._readiness.body()

    def callers(self, request_id: str) -> int:
        """How many wait for a request."""
        wait = self.waiters._waits.get(request_id)
        return wait.callers if wait else 0

    def running(self) -> list[asyncio.Task[None]]:
        """What the engine works on."""
        return list(self._running)

    def route(self, model: str, version: int = 1) -> None:
        route = route_pb2.Route(model=model, version=version)
        route.variants.add(
            name=f"{model}-base", base_model="m", weight=1, stage=route_pb2.STAGE_CHAMPION
        )
        self.view.route(record(encode(route, topic="penstock.routes", key=model, source="test")))

    async def publish(self, records: Sequence[Outgoing]) -> None:
        for outgoing in records:
            if outgoing.topic == "penstock.feedback":
                sent = decode(record(outgoing), feedback_pb2.Feedback)
                self.feedback.append((outgoing.key, sent))
                continue
            if outgoing.topic == "penstock.control":
                await self.obey(outgoing)
                continue
            admitted = decode(record(outgoing), admitted_pb2.AdmittedRequest)
            if text_of(admitted) == "unwritten":
                await self.writing.wait()
                raise LogError("no broker")
            self.admitted.append(admitted)
            self.view.admitted(record(outgoing))
            task = asyncio.create_task(self.run(admitted, outgoing.key))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def obey(self, outgoing: Outgoing) -> None:
        """Ends a request as the pump would, if it is the tenant's and has not ended."""
        cancel = decode(record(outgoing), control_pb2.Control).cancel
        assert outgoing.key == cancel.request_id.encode()
        self.cancelled.append(cancel)
        for admitted in self.admitted:
            if (admitted.request_id, admitted.request.tenant) != (cancel.request_id, cancel.tenant):
                continue
            if self.index.find(cancel.request_id, cancel.tenant, 0) is None:
                await self.finish(admitted, cancel.request_id.encode(), "cancelled")

    async def run(self, admitted: admitted_pb2.AdmittedRequest, key: bytes | None) -> None:
        """Ends a request as the engine and the log would."""
        text = text_of(admitted)
        if text == "silent":
            return
        if admitted.stream:
            await self.stream(admitted, text, ANSWER.format(text))
        if text != "endless":
            await self.finish(admitted, key, text)

    async def finish(
        self, admitted: admitted_pb2.AdmittedRequest, key: bytes | None, text: str
    ) -> None:
        response = response_pb2.GenerateResponse(
            request_id=admitted.request_id,
            response_id="rsp-1",
            outcome=response_pb2.OUTCOME_ANSWERED,
            text=ANSWER.format(text),
            finish_reason=response_pb2.FINISH_REASON_STOP,
            usage=common_pb2.Usage(prompt_tokens=5, completion_tokens=11, cached_prompt_tokens=2),
            model=admitted.request.model,
            variant=admitted.variant,
            route_version=admitted.route_version,
            tenant=admitted.request.tenant,
            idempotency_key=admitted.request.idempotency_key,
        )
        if text in ERRORS:
            response.outcome, response.error.code, response.error.field = ERRORS[text]
            response.error.message = f"it ended: {text}"
            response.error.retryable = text == "unavailable"
            response.text = ""
        terminal = record(encode(response, topic="penstock.responses", key=key, source="test"))
        if admitted.HasField("reply_partition"):
            self.view.reply(terminal)
        await asyncio.sleep(0)
        self.view.response(terminal)

    async def stream(self, admitted: admitted_pb2.AdmittedRequest, text: str, answer: str) -> None:
        words = [word + " " for word in answer.split(" ")[:-1]] + [answer.split(" ")[-1]]
        runs = [words]
        if text == "again":
            runs = [words[:5], words]
        elif text == "diverge":
            runs = [words[:5], [*words[:3], "something ", "else "]]
        elif text == "break":
            runs = [words[:3]]
        elif text in ERRORS:
            runs = []
        for attempt, run in enumerate(runs, 1):
            crc = 0
            for index, word in enumerate(run):
                crc = zlib.crc32(word.encode(), crc)
                if text == "lossy" and index == 4:
                    continue
                chunk = response_pb2.TokenChunk(
                    request_id=admitted.request_id,
                    attempt=attempt,
                    index=index,
                    tokens=1,
                    text=word,
                    text_crc32=crc,
                )
                self.view.chunk(
                    record(encode(chunk, topic="penstock.tokens", key=None, source="test"))
                )
                # Long enough that a reader gets some chunks one by one.
                await asyncio.sleep(0.002)


def text_of(admitted: admitted_pb2.AdmittedRequest) -> str:
    request = admitted.request
    return request.prompt or request.messages[-1].content


def record(outgoing: Outgoing) -> Record:
    stamp = int(_now().timestamp() * 1000)
    place = Partition(outgoing.topic, outgoing.partition or 0)
    return Record(place, 0, outgoing.key, outgoing.value, outgoing.headers, stamp)


async def _yes() -> bool:
    return True


async def _heard(ready: bool) -> None:
    """Nobody asks the gRPC health service here."""


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


@pytest.fixture
async def platform() -> Platform:
    return Platform()


@pytest.fixture
async def stub(platform: Platform) -> AsyncIterator[Stub]:
    """The gRPC door."""
    servicer = InferenceServicer(platform.desk)
    register = partial(inference_service_pb2_grpc.add_InferenceServicer_to_server, servicer)
    server = Server([Service(SERVICE_NAME, register)], host="127.0.0.1", port=0)
    port = await server.start()
    async with open_channel(f"127.0.0.1:{port}") as channel:
        yield inference_service_pb2_grpc.InferenceStub(channel)
    await server.stop(0)


@pytest.fixture
async def port(platform: Platform) -> AsyncIterator[int]:
    """The HTTP door's port."""
    web = make_http(platform.desk, max_request_bytes=50_000, health=platform.health)
    server = WebServer(web, host="127.0.0.1", port=0)
    yield await server.start()
    await server.stop(1)
