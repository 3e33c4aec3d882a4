"""The gRPC edge: `penstock.v1.Rollouts`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol

import grpc

from penstock.errors import InvalidRequest
from penstock.v1 import job_pb2, rollouts_service_pb2, rollouts_service_pb2_grpc
from penstock_retrain.errors import NotAllowed
from penstock_retrain.jobs.feed import JobFeed
from penstock_retrain.jobs.opening import Opening
from penstock_retrain.jobs.states import FINAL, Event, Job, JobState, Trigger
from penstock_retrain.jobs.store import JobStore
from penstock_retrain.jobs.wire import (
    alias_change_message,
    job_message,
    transition_message,
    transition_update,
    version_message,
)
from penstock_retrain.registry.lineage import Lineage, LineageReader
from penstock_retrain.registry.store import Registry
from penstock_retrain.registry.versions import CHAMPION
from penstock_retrain.servicer_messages import lineage_message, page_token, parse_page_token

__all__ = ["RolloutsServicer"]

pb = rollouts_service_pb2
PAGE = 50
MAX_PAGE = 200
# A watcher is told of what the topic missed at least this often.
LOOK_S = 5.0
MAX_TEXT = 2000


class _Said(Protocol):
    """What every request of a person has."""

    job_id: str
    by: str
    reason: str


class RolloutsServicer(rollouts_service_pb2_grpc.RolloutsServicer):
    """Answers from SQL; nothing is in it that is not there.

    Args:
        jobs: Jobs.
        opening: Opens them.
        registry: Versions and aliases.
        lineage: Puts them together.
        feed: What happens to jobs.
        moved: Told when a job was changed here.
        clock_us: The time now, microseconds since 1970.
    """

    def __init__(
        self,
        jobs: JobStore,
        opening: Opening,
        registry: Registry,
        lineage: LineageReader,
        feed: JobFeed,
        moved: Callable[[], None],
        clock_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self._jobs = jobs
        self._opening = opening
        self._registry = registry
        self._lineage = lineage
        self._feed = feed
        self._moved = moved
        self._clock_us = clock_us

    async def StartJob(  # noqa: N802 - the contract's name, as all below
        self, request: pb.StartJobRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> job_pb2.Job:
        """See the contract."""

        def start() -> Job:
            return self._opening.start(
                request.model,
                document=request.policy,
                by=request.by,
                reason=request.reason,
                key=request.idempotency_key,
                now_us=self._clock_us(),
            )

        job = await asyncio.to_thread(start)
        self._moved()
        return await self._message(job)

    async def GetJob(  # noqa: N802
        self, request: pb.GetJobRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> job_pb2.Job:
        """See the contract."""
        return await self._message(await asyncio.to_thread(self._jobs.get, request.job_id))

    async def ListJobs(  # noqa: N802
        self, request: pb.ListJobsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.ListJobsResponse:
        """See the contract."""
        size = request.page_size or PAGE
        if size > MAX_PAGE:
            raise InvalidRequest(f"at most {MAX_PAGE} jobs a page", field="page_size")
        before = parse_page_token(request.page_token)

        def read() -> list[Job]:
            return self._jobs.newest(
                model=request.model, active=request.active, before=before, limit=size + 1
            )

        found = await asyncio.to_thread(read)
        more = len(found) > size
        jobs = [await self._message(job) for job in found[:size]]
        return pb.ListJobsResponse(
            jobs=jobs, next_page_token=page_token(found[size - 1]) if more else ""
        )

    async def WatchJob(  # noqa: N802
        self, request: pb.WatchJobRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[job_pb2.JobUpdate]:
        """See the contract. Transitions come from SQL, each once; progress from the topic."""
        told = 0
        with self._feed.follow(request.job_id) as queue:
            while True:
                job = await asyncio.to_thread(self._jobs.get, request.job_id)
                for transition in await asyncio.to_thread(self._jobs.history, request.job_id):
                    if transition.revision > told:
                        told = transition.revision
                        yield transition_update(job, transition)
                if job.state in FINAL and job.revision <= told:
                    return
                async for progress in self._progress(queue):
                    yield progress

    async def _progress(
        self, queue: asyncio.Queue[job_pb2.JobUpdate]
    ) -> AsyncIterator[job_pb2.JobUpdate]:
        """Progress until there may be a transition."""
        try:
            async with asyncio.timeout(LOOK_S):
                while (update := await queue.get()).HasField("progress"):
                    yield update
        except TimeoutError:
            return

    async def Approve(  # noqa: N802
        self, request: pb.ApproveRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> job_pb2.Job:
        """See the contract."""
        return await self._act(request, Trigger.APPROVED)

    async def Abort(  # noqa: N802
        self, request: pb.AbortRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> job_pb2.Job:
        """See the contract."""
        return await self._act(request, Trigger.ABORTED)

    async def Continue(  # noqa: N802
        self, request: pb.ContinueRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> job_pb2.Job:
        """See the contract."""
        return await self._act(request, Trigger.CONTINUED)

    async def Promote(  # noqa: N802
        self, request: pb.PromoteRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> job_pb2.Job:
        """See the contract."""
        return await self._act(request, Trigger.PROMOTED_BY_HAND)

    async def Rollback(  # noqa: N802
        self, request: pb.RollbackRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> job_pb2.Job:
        """See the contract."""
        job_id = await asyncio.to_thread(self._to_roll_back, request.model)
        said = pb.AbortRequest(job_id=job_id, by=request.by, reason=request.reason)
        return await self._act(said, Trigger.ROLLED_BACK_BY_HAND)

    def _to_roll_back(self, model: str) -> str:
        if not model:
            raise InvalidRequest("name the model to be rolled back", field="model")
        for job in self._jobs.newest(model=model, active=True, before=None, limit=1):
            if job.result(JobState.REGISTERING):
                return job.id
        number = self._registry.aliases(model).get(CHAMPION)
        if not number:
            raise NotAllowed(
                f"{model} has no candidate on its route and no champion that a job made; for "
                f"other routes: penstock routes rollback {model}",
                field="model",
            )
        return self._registry.version(model, number).job_id

    async def History(  # noqa: N802
        self, request: pb.HistoryRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.HistoryResponse:
        """See the contract."""
        if request.WhichOneof("of") == "job_id":
            await asyncio.to_thread(self._jobs.get, request.job_id)  # is there one
            history = await asyncio.to_thread(self._jobs.history, request.job_id)
            return pb.HistoryResponse(transitions=[transition_message(t) for t in history])
        if not request.model:
            raise InvalidRequest("name a job or a model", field="of")
        return await asyncio.to_thread(self._of_model, request)

    def _of_model(self, request: pb.HistoryRequest) -> pb.HistoryResponse:
        model = request.model
        now = self._registry.aliases(model)
        aliases = (
            self._registry.as_of(model, request.as_of.ToMicroseconds())
            if request.HasField("as_of")
            else now
        )
        return pb.HistoryResponse(
            versions=[
                version_message(v, sorted(a for a, n in now.items() if n == v.version))
                for v in self._registry.versions(model)
            ],
            alias_changes=[alias_change_message(c) for c in self._registry.alias_history(model)],
            aliases=aliases,
        )

    async def Lineage(  # noqa: N802
        self, request: pb.LineageRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.LineageResponse:
        """See the contract."""
        model, which = request.model, request.WhichOneof("which")
        if not model or which is None:
            raise InvalidRequest("name a model and a version, an alias or a job", field="which")

        def read() -> Lineage:
            match which:
                case "version":
                    return self._lineage.of_number(model, request.version)
                case "alias":
                    return self._lineage.of_alias(model, request.alias)
                case _:
                    return self._lineage.of_job(model, request.job_id)

        return lineage_message(await asyncio.to_thread(read))

    async def _act(self, request: _Said, trigger: Trigger) -> job_pb2.Job:
        event = Event(
            trigger, self._clock_us(), request.reason[:MAX_TEXT], by=request.by[:MAX_TEXT]
        )
        job = await asyncio.to_thread(self._jobs.act, request.job_id, event)
        self._moved()
        return await self._message(job)

    async def _message(self, job: Job) -> job_pb2.Job:
        version = await asyncio.to_thread(self._registry.by_job, job.id)
        return job_message(job, version.version if version is not None else 0)
