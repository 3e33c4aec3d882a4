"""Jobs, versions and lineage as tables and lines for people. Pure."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from rich.table import Table

from penstock.v1 import job_pb2, model_version_pb2, rollouts_service_pb2

__all__ = [
    "history_table",
    "instant",
    "job_lines",
    "job_table",
    "lineage_lines",
    "prospect_lines",
    "state_name",
    "update_line",
    "versions_table",
]

MAX_SHOWN = 200
_HIDDEN = {"card"}  # long, and shown by `penstock lineage --card`


def instant(stamp: Timestamp) -> str:
    """An instant to the second, UTC."""
    return stamp.ToDatetime(dt.UTC).isoformat(timespec="seconds")


def state_name(state: job_pb2.JobState.ValueType) -> str:
    """A state as people write it."""
    found = job_pb2.JobState.DESCRIPTOR.values_by_number.get(state)
    name = found.name if found is not None else f"state {state}"
    return name.removeprefix("JOB_STATE_").lower()


def job_table(jobs: Sequence[job_pb2.Job]) -> Table:
    """A row per job."""
    table = Table("job", "model", "state", "version", "opened", "changed", "reason")
    for job in jobs:
        table.add_row(
            job.job_id,
            job.model,
            _state(job),
            str(job.model_version or "-"),
            instant(job.created_at),
            instant(job.updated_at),
            _short(job.reason),
        )
    return table


def job_lines(job: job_pb2.Job, transitions: Sequence[job_pb2.JobTransition]) -> Iterator[str]:
    """A job with what its stages found out and what happened to it."""
    yield f"{job.job_id}  {job.model}  {_state(job)}"
    if job.reason:
        yield f"  {job.reason}"
    yield f"  opened {instant(job.created_at)}, changed {instant(job.updated_at)}"
    cause = job.cause
    if cause.kind == job_pb2.JOB_CAUSE_KIND_INCIDENT:
        yield f"  asked for by drift: incident {cause.incident_id}, finding {cause.event_id}"
    else:
        yield f"  started by hand{f' by {cause.by}' if cause.by else ''}"
    if cause.reason:
        yield f"  because: {cause.reason}"
    if job.model_version:
        yield f"  made {job.model}@{job.model_version}"
    if job.HasField("retry_at"):
        yield f"  tried again at {instant(job.retry_at)}"
    for stage, text in sorted(job.results.items()):
        yield f"  {stage}:"
        yield from (f"    {line}" for line in _fact_lines(json.loads(text)))
    for transition in transitions:
        yield f"  {_transition(transition)}"
    yield from (f"  next: {command}" for command in _next(job))


def _fact_lines(facts: Mapping[str, Any]) -> Iterator[str]:
    for name, value in sorted(facts.items()):
        if name == "prospects":
            yield from prospect_lines(value)
        elif name not in _HIDDEN:
            shown = value if isinstance(value, str) else json.dumps(value)
            yield f"{name}: {_short(shown)}"


def prospect_lines(prospects: Mapping[str, Any]) -> Iterator[str]:
    """What a canary will be able to tell: a line for each step."""
    mean = prospects["champion_mean"]
    known = "not known" if mean is None else f"{mean:g}"
    yield f"prospects of {prospects['metric']}, whose mean score of the champion is {known}:"
    for step in prospects["steps"]:
        parts = [f"by {step['values']} values at {step['percent']:g} %"]
        harm, gain = step["smallest_harm_found"], step["smallest_gain_found"]
        parts.append("finds no harm" if harm is None else f"finds a harm of {harm:g}")
        if gain is not None:
            parts.append(f"finds a gain of {gain:g}")
        if step["promotes_an_equal_one"] is not None:
            parts.append(
                f"promotes an equal one with probability {step['promotes_an_equal_one']:g}"
            )
        yield "  " + ", ".join(parts)


def _next(job: job_pb2.Job) -> Iterator[str]:
    if job.state == job_pb2.JOB_STATE_AWAITING_APPROVAL:
        yield f"penstock jobs approve {job.job_id}"
        yield f"penstock jobs abort {job.job_id}"
    elif job.state == job_pb2.JOB_STATE_INCONCLUSIVE:
        yield f"penstock rollout continue {job.job_id}"
        yield f"penstock rollout promote {job.job_id}"
        yield f"penstock rollout rollback {job.model}"
    elif job.model_version:
        yield f"penstock lineage {job.model}@{job.model_version}"


def update_line(update: job_pb2.JobUpdate) -> str:
    """One line of `jobs watch`."""
    at = instant(update.at)
    if update.HasField("transition"):
        return _transition(update.transition)
    said = update.progress
    parts = [f"{at}  {state_name(update.state)}"]
    if said.steps:
        parts.append(f"{said.step}/{said.steps}")
    elif said.step:
        parts.append(str(said.step))
    parts.extend(f"{name} {value:.4g}" for name, value in sorted(said.metrics.items()))
    if said.HasField("eta_s"):
        parts.append(f"{said.eta_s:.0f} s left")
    if said.message:
        parts.append(said.message)
    return "  ".join(parts)


def versions_table(versions: Sequence[model_version_pb2.ModelVersion]) -> Table:
    """A row per version."""
    table = Table("version", "name", "status", "aliases", "kind", "base model", "made", "job")
    for version in versions:
        status = model_version_pb2.ModelVersionStatus.Name(version.status)
        retired = " (retired)" if version.HasField("retired_at") else ""
        table.add_row(
            str(version.version),
            version.name,
            status.removeprefix("MODEL_VERSION_STATUS_").lower() + retired,
            ", ".join(version.aliases) or "-",
            version.kind,
            version.base_model,
            instant(version.created_at),
            version.job_id,
        )
    return table


def history_table(changes: Sequence[model_version_pb2.AliasChange]) -> Table:
    """A row per change of an alias."""
    table = Table("at", "alias", "from", "to", "job", "by", "reason")
    for change in changes:
        table.add_row(
            instant(change.at),
            change.alias,
            str(change.from_version or "-"),
            str(change.to_version or "-"),
            change.job_id or "-",
            change.by or "-",
            _short(change.reason),
        )
    return table


def lineage_lines(found: rollouts_service_pb2.LineageResponse) -> Iterator[str]:
    """From a version back to its data, and what became of it."""
    version = found.version
    status = model_version_pb2.ModelVersionStatus.Name(version.status)
    aliases = f"  ({', '.join(version.aliases)})" if version.aliases else ""
    yield (
        f"{version.model}@{version.version}  {version.name}  "
        f"{status.removeprefix('MODEL_VERSION_STATUS_').lower()}{aliases}"
    )
    yield f"  {version.kind} of {version.base_model}, made {instant(version.created_at)}"
    if version.digest:
        yield f"  files: sha256 {version.digest}"
    if version.HasField("retired_at"):
        yield f"  retired {instant(version.retired_at)}: {version.retired_reason}"
    for title, text in (
        ("dataset", found.dataset),
        ("training", found.training),
        ("gates", found.gates),
        ("canary", found.canary),
    ):
        yield f"{title}:" if text else f"{title}: not reached"
        for name, value in sorted(json.loads(text).items()) if text else ():
            shown = value if isinstance(value, str) else json.dumps(value)
            yield f"  {name}: {shown}"
    if found.routes:
        yield "routes:"
    for route in found.routes:
        share = f" {route.percent:g} %" if route.percent else ""
        yield (
            f"  {instant(route.at)}  version {route.route_version}: {route.change}{share}, "
            f"{route.outcome}"
        )
    if found.alias_changes:
        yield "aliases:"
    for change in found.alias_changes:
        before, after = change.from_version or "none", change.to_version or "none"
        yield f"  {instant(change.at)}  {change.alias}: {before} -> {after}"
    yield f"job {found.job.job_id}:"
    for transition in found.transitions:
        yield f"  {_transition(transition)}"


def _transition(transition: job_pb2.JobTransition) -> str:
    before = getattr(transition, "from")
    step = f" step {transition.step}" if transition.step else ""
    arrow = f"{state_name(before)} -> " if before else ""
    by = f" by {transition.by}" if transition.by else ""
    reason = f": {_short(transition.reason)}" if transition.reason else ""
    return (
        f"{instant(transition.at)}  {arrow}{state_name(transition.to)}{step} "
        f"({transition.trigger}{by}){reason}"
    )


def _state(job: job_pb2.Job) -> str:
    name = state_name(job.state)
    if job.state == job_pb2.JOB_STATE_CANARY and job.step:
        return f"{name} step {job.step}"
    if job.state == job_pb2.JOB_STATE_AWAITING_APPROVAL:
        return f"{name} of {state_name(job.awaiting)}"
    return name


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MAX_SHOWN else f"{line[: MAX_SHOWN - 1]}…"
