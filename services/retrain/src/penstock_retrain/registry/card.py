"""Model cards: what a version is, made of what its job found out. Pure.

The front matter is Hugging Face's (huggingface.co/docs/hub/model-cards): `base_model`,
`library_name`, `tags` and `model-index`, which hubs and tools read. A card is written when the
version is registered, and tells what is known then; lineage adds what came of it.
"""

from __future__ import annotations

import datetime as dt
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from penstock_retrain.jobs.states import CauseKind, Facts, Job, JobState
from penstock_retrain.registry.versions import Version, VersionStatus

__all__ = ["model_card"]

MAX_ROWS = 200


def model_card(job: Job, version: Version, *, digest: str = "") -> str:
    """The card of a version as Markdown with front matter.

    Args:
        job: The job that made it, with what its stages found out.
        version: The version.
        digest: SHA-256 of the weights' files with their names.
    """
    return "\n".join(
        [
            "---",
            yaml.safe_dump(_front_matter(job, version), sort_keys=False).rstrip(),
            "---",
            "",
            f"# {version.name}",
            "",
            *_summary(job, version, digest),
            *_section("Data", job.result(JobState.DATASET)),
            *_section("Training", job.result(JobState.TRAINING)),
            *_gates(job.result(JobState.EVALUATING)),
            *_verdict(job, version),
        ]
    )


def _front_matter(job: Job, version: Version) -> dict[str, Any]:
    made: dict[str, Any] = {
        "base_model": version.base_model,
        "library_name": "peft" if version.kind == "adapter" else "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["penstock", version.kind, f"job:{job.id}"],
    }
    dataset = job.result(JobState.DATASET)
    if dataset.get("digest"):
        made["datasets"] = [f"penstock/{version.model}@{str(dataset['digest'])[:12]}"]
    results = [
        {"type": str(row["metric"]), "value": row["estimate"], "name": str(row["metric"])}
        for row in _rows(job.result(JobState.EVALUATING))
        if row.get("slice", "all") == "all" and _is_number(row.get("estimate"))
    ]
    if results:
        made["model-index"] = [
            {
                "name": version.name,
                "results": [
                    {
                        "task": {"type": "text-generation"},
                        "dataset": {"name": "held-out", "type": "penstock"},
                        "metrics": results,
                    }
                ],
            }
        ]
    return made


def _summary(job: Job, version: Version, digest: str) -> Iterator[str]:
    cause = job.cause
    why = {
        CauseKind.INCIDENT: f"Drift asked for it: incident `{cause.id}`, finding "
        f"`{cause.event_id}`.",
        CauseKind.MANUAL: f"Started by hand{f' by {cause.by}' if cause.by else ''}.",
    }[cause.kind]
    reason = f" {_line(cause.reason)}." if cause.reason else ""
    yield f"Version {version.version} of `{version.model}`, made by job `{job.id}`. {why}{reason}"
    yield ""
    yield f"- Kind: {version.kind}, of `{version.base_model}`"
    yield f"- Made: {_instant(version.created_us)}"
    if digest:
        yield f"- SHA-256 of the weights' files: `{digest}`"
    yield ""


def _section(title: str, facts: Facts) -> Iterator[str]:
    if not facts:
        return
    yield f"## {title}"
    yield ""
    for name in sorted(facts):
        value = facts[name]
        shown = json.dumps(value, sort_keys=True) if isinstance(value, Mapping | list) else value
        yield f"- {name}: {_line(str(shown))}"
    yield ""


def _gates(facts: Facts) -> Iterator[str]:
    if not facts:
        return
    yield "## Gates"
    yield ""
    rows = _rows(facts)
    if not rows:
        yield from list(_section("", facts))[2:]
        return
    yield "| metric | slice | n | estimate | low | high | threshold | verdict |"
    yield "|---|---|---|---|---|---|---|---|"
    columns = ("metric", "slice", "n", "estimate", "low", "high", "threshold", "verdict")
    for row in rows[:MAX_ROWS]:
        yield "| " + " | ".join(_cell(row.get(column, "")) for column in columns) + " |"
    yield ""


def _verdict(job: Job, version: Version) -> Iterator[str]:
    canary = job.told(JobState.CANARY)
    if not canary and version.status in (VersionStatus.TRAINED, VersionStatus.REGISTERED):
        yield "## Canary"
        yield ""
        command = f"penstock lineage {version.model}@{version.version}"
        yield f"Not decided when this card was written; `{command}` tells."
        yield ""
        return
    yield from _section("Canary", canary)
    yield f"Status: {version.status}{f', {_line(job.reason)}' if job.reason else ''}"
    yield ""


def _rows(facts: Facts) -> list[Mapping[str, Any]]:
    rows = facts.get("rows")
    if not isinstance(rows, list):
        return []
    return [row for row in rows if isinstance(row, Mapping) and "metric" in row]


def _cell(value: object) -> str:
    if _is_number(value):
        return f"{value:.4g}"
    return _line(str("" if value is None else value)).replace("|", "\\|")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _line(text: str) -> str:
    return " ".join(text.split())


def _instant(instant_us: int) -> str:
    return dt.datetime.fromtimestamp(instant_us // 1_000_000, dt.UTC).isoformat()
