"""`penstock.v1.Rollouts` over a real channel: what people may do, and what they are told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from penstock.cli.run import CliError
from penstock.rpc.channel import open_channel
from penstock.rpc.server import Server, Service
from penstock.v1 import job_pb2, model_version_pb2, rollouts_service_pb2, rollouts_service_pb2_grpc
from penstock_retrain.cli import views
from penstock_retrain.cli.lineage import request_of
from penstock_retrain.jobs.feed import JobFeed
from penstock_retrain.jobs.opening import Opening
from penstock_retrain.jobs.stages import Candidate, RouteChange, RouteChangeKind
from penstock_retrain.jobs.states import JobState, Trigger
from penstock_retrain.registry.lineage import LineageReader
from penstock_retrain.servicer import RolloutsServicer
from tests.unit.retrain.jobs.places import Place

S, T, K = JobState, Trigger, RouteChangeKind
pb = rollouts_service_pb2
V1 = Candidate("triage-v1", "triage", "triage-v1")


class Door:
    def __init__(self, place: Place, stub: Any, moves: list[int]) -> None:
        self.place, self.stub, self.moves = place, stub, moves

    async def refused(self, call: Any) -> tuple[grpc.StatusCode, str]:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await call
        return error.value.code(), str(error.value.details())


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    place = Place(f"sqlite:///{tmp_path}/retrain.sqlite")
    place.routed()
    moves: list[int] = []
    servicer = RolloutsServicer(
        place.store,
        Opening(place.store, lambda: "approve_before: [training]"),
        place.registry,
        LineageReader(place.registry, place.store, place.outbox),
        JobFeed(),
        lambda: moves.append(1),
        clock_us=place.tick,
    )
    register = partial(rollouts_service_pb2_grpc.add_RolloutsServicer_to_server, servicer)
    server = Server([Service("penstock.v1.Rollouts", register)], host="127.0.0.1", port=0)
    port = await server.start()
    async with open_channel(f"127.0.0.1:{port}") as channel:
        yield Door(place, rollouts_service_pb2_grpc.RolloutsStub(channel), moves)
    await server.stop(0)
    place.close()


async def test_a_job_is_started_once_approved_and_ended(door: Door) -> None:
    request = pb.StartJobRequest(model="triage", by="me", reason="new product", idempotency_key="k")
    made = await door.stub.StartJob(request)
    assert (await door.stub.StartJob(request)).job_id == made.job_id
    assert (made.state, made.cause.by) == (job_pb2.JOB_STATE_OPENED, "me")
    assert made.cause.kind == job_pb2.JOB_CAUSE_KIND_MANUAL
    # The whole policy of then is kept, defaults too.
    assert "cooldown_s: 3600" in made.policy
    code, said = await door.refused(door.stub.StartJob(pb.StartJobRequest(model="triage")))
    assert code == grpc.StatusCode.FAILED_PRECONDITION
    assert f"penstock jobs abort {made.job_id}" in said
    code, said = await door.refused(door.stub.Approve(pb.ApproveRequest(job_id=made.job_id)))
    assert (code, "approved cannot happen" in said) == (grpc.StatusCode.FAILED_PRECONDITION, True)
    job = door.place.apply(door.place.claim(), T.STARTED)
    assert door.place.done(job).state is S.AWAITING_APPROVAL
    said = await door.stub.Approve(pb.ApproveRequest(job_id=made.job_id, by="you"))
    assert said.state == job_pb2.JOB_STATE_TRAINING
    ended = await door.stub.Abort(pb.AbortRequest(job_id=made.job_id, by="me", reason="no"))
    assert (ended.state, ended.reason) == (job_pb2.JOB_STATE_CANCELLED, "no")
    history = (await door.stub.History(pb.HistoryRequest(job_id=made.job_id))).transitions
    assert [(t.trigger, t.by) for t in history] == [
        ("opened", "me"),
        ("started", ""),
        ("done", ""),
        ("approved", "you"),
        ("aborted", "me"),
    ]
    assert len(door.moves) == 4


@pytest.mark.parametrize(
    ("call", "request_", "code", "said"),
    [
        ("StartJob", pb.StartJobRequest(), "INVALID_ARGUMENT", "name the model"),
        (
            "StartJob",
            pb.StartJobRequest(model="triage", policy="start: {cooldwn_s: 1}"),
            "INVALID_ARGUMENT",
            "did you mean cooldown_s?",
        ),
        ("GetJob", pb.GetJobRequest(job_id="x"), "NOT_FOUND", "penstock jobs list"),
        ("Abort", pb.AbortRequest(job_id="x"), "NOT_FOUND", "penstock jobs list"),
        ("History", pb.HistoryRequest(job_id="x"), "NOT_FOUND", "penstock jobs list"),
        ("History", pb.HistoryRequest(), "INVALID_ARGUMENT", "a job or a model"),
        ("ListJobs", pb.ListJobsRequest(page_size=201), "INVALID_ARGUMENT", "200"),
        ("ListJobs", pb.ListJobsRequest(page_token="x"), "INVALID_ARGUMENT", "leave it out"),
        ("Rollback", pb.RollbackRequest(), "INVALID_ARGUMENT", "name the model"),
        ("Rollback", pb.RollbackRequest(model="triage"), "FAILED_PRECONDITION", "routes rollback"),
        ("Lineage", pb.LineageRequest(model="triage"), "INVALID_ARGUMENT", "a version"),
        ("Lineage", pb.LineageRequest(model="triage", version=7), "NOT_FOUND", "no version 7"),
        ("Lineage", pb.LineageRequest(model="triage", alias="champion"), "NOT_FOUND", "champion"),
    ],
)
async def test_what_is_refused_says_why(
    door: Door, call: str, request_: Any, code: str, said: str
) -> None:
    found, message = await door.refused(getattr(door.stub, call)(request_))
    assert (found.name, said in message) == (code, True), message


async def test_pages_of_jobs(door: Door) -> None:
    for number in range(5):
        door.place.apply(door.place.to(S.DATASET, f"job-{number}"), T.ABORTED)
    seen, token = [], ""
    while True:
        page = await door.stub.ListJobs(pb.ListJobsRequest(page_size=2, page_token=token))
        seen.append([job.job_id for job in page.jobs])
        token = page.next_page_token
        if not token:
            break
    assert seen == [["job-4", "job-3"], ["job-2", "job-1"], ["job-0"]]
    assert not (await door.stub.ListJobs(pb.ListJobsRequest(active=True))).jobs


async def test_a_watcher_sees_everything_once_and_then_the_end(door: Door) -> None:
    job = door.place.to(S.EVALUATING)
    watching = door.stub.WatchJob(pb.WatchJobRequest(job_id="job-1"))
    seen = [await watching.read() for _ in range(4)]
    door.place.apply(job, T.REFUSED, reason="below the threshold")
    async with asyncio.timeout(30):
        seen.append(await watching.read())
        assert await watching.read() is grpc.aio.EOF
    assert [update.revision for update in seen] == [1, 2, 3, 4, 5]
    assert seen[-1].state == job_pb2.JOB_STATE_REJECTED
    assert "below the threshold" in views.update_line(seen[-1])


async def test_lineage_answers_for_every_fate(door: Door) -> None:
    place = door.place
    job = place.to(S.CANARY, "job-1")
    job = place.apply(job, T.STEPPED, RouteChange(K.SPLIT, V1, 5), step=1)
    place.apply(job, T.PROMOTE, facts={"e_value": 25.0})
    place.apply(place.to(S.CANARY, "job-2"), T.ROLL_BACK, reason="harm")
    place.apply(place.to(S.EVALUATING, "job-3"), T.REFUSED, facts={"passed": False}, reason="gate")
    status = model_version_pb2.ModelVersionStatus
    fates = {
        "triage@1": status.MODEL_VERSION_STATUS_PROMOTED,
        "triage@2": status.MODEL_VERSION_STATUS_ROLLED_BACK,
        "triage@job-3": status.MODEL_VERSION_STATUS_REJECTED,
    }
    for text, fate in fates.items():
        found = await door.stub.Lineage(request_of(text))
        assert found.version.status == fate
        # Down to the very offsets of the data.
        assert json.loads(found.dataset)["sources"] == {"responses/0": [3, 102]}
        assert json.loads(found.training)["base_model"] == "triage"
        assert json.loads(found.gates)["passed"] == (fate != 5)
        lines = "\n".join(views.lineage_lines(found))
        assert f"job {found.job.job_id}:" in lines
        assert '{"responses/0": [3, 102]}' in lines
    champion = await door.stub.Lineage(request_of("triage@champion"))
    assert champion.version.version == 1
    assert [(r.change, r.percent, r.outcome) for r in champion.routes] == [
        ("split", 5.0, "waiting"),
        ("promote", 0.0, "waiting"),
    ]
    assert [(c.alias, c.to_version) for c in champion.alias_changes] == [
        ("challenger", 1),
        ("challenger", 0),
        ("champion", 1),
    ]
    rejected = await door.stub.Lineage(request_of("triage@3"))
    assert (rejected.canary, rejected.model_card) == ("", "")
    assert "canary: not reached" in "\n".join(views.lineage_lines(rejected))


async def test_a_rollback_is_of_the_candidate_then_of_the_champion(door: Door) -> None:
    place = door.place
    place.apply(place.to(S.CANARY, "job-1"), T.PROMOTE)
    before = Timestamp()
    before.FromMicroseconds(place.now_us)
    place.to(S.SHADOW, "job-2")
    said = pb.RollbackRequest(model="triage", by="me", reason="complaints")
    assert (await door.stub.Rollback(said)).job_id == "job-2"
    assert (await door.stub.Rollback(said)).job_id == "job-1"
    history = await door.stub.History(pb.HistoryRequest(model="triage"))
    assert not history.aliases
    assert [v.status for v in history.versions] == [4, 4]
    then = await door.stub.History(pb.HistoryRequest(model="triage", as_of=before))
    assert dict(then.aliases) == {"champion": 1}
    last = then.alias_changes[-1]
    assert (last.alias, last.from_version, last.to_version) == ("champion", 1, 0)
    assert (last.by, last.reason) == ("me", "complaints")


def test_what_names_no_version_is_told() -> None:
    for text in ("triage", "@3", "triage@", ""):
        with pytest.raises(CliError, match="MODEL@VERSION"):
            request_of(text)
    assert request_of("a@b@3") == pb.LineageRequest(model="a@b", version=3)
