"""Answers of `penstock.v1.Rollouts` that are put together of several parts. Pure."""

from __future__ import annotations

import json

from penstock.errors import InvalidRequest
from penstock.v1 import rollouts_service_pb2
from penstock_retrain.jobs.outbox import Entry
from penstock_retrain.jobs.states import Job, JobState
from penstock_retrain.jobs.wire import (
    alias_change_message,
    job_message,
    stamp,
    transition_message,
    version_message,
)
from penstock_retrain.registry.lineage import Lineage

__all__ = ["lineage_message", "page_token", "parse_page_token"]


def lineage_message(found: Lineage) -> rollouts_service_pb2.LineageResponse:
    """Everything that is known of a version."""

    def facts(stage: JobState) -> str:
        said = found.job.told(stage)
        return json.dumps(said, sort_keys=True) if said else ""

    return rollouts_service_pb2.LineageResponse(
        version=version_message(found.version, list(found.aliases)),
        job=job_message(found.job, found.version.version),
        transitions=[transition_message(each) for each in found.transitions],
        alias_changes=[alias_change_message(each) for each in found.alias_changes],
        dataset=facts(JobState.DATASET),
        training=facts(JobState.TRAINING),
        gates=facts(JobState.EVALUATING),
        canary=facts(JobState.CANARY),
        model_card=found.version.card,
        routes=[_route(entry) for entry in found.routes],
    )


def _route(entry: Entry) -> rollouts_service_pb2.RouteWritten:
    return rollouts_service_pb2.RouteWritten(
        route_version=entry.version,
        change=str(entry.change.kind),
        percent=entry.change.percent,
        at=stamp(entry.created_us),
        outcome=str(entry.status),
    )


def page_token(last: Job) -> str:
    """Where the page after this job begins."""
    return f"{last.created_us}/{last.id}"


def parse_page_token(token: str) -> tuple[int, str] | None:
    """Time and id of the last job of the page before; None for the first page.

    Raises:
        InvalidRequest: It is no token of ours.
    """
    if not token:
        return None
    instant, slash, job_id = token.partition("/")
    if not (slash and job_id and instant.isascii() and instant.isdigit()):
        raise InvalidRequest("not a token of a page before: leave it out", field="page_token")
    return int(instant), job_id
