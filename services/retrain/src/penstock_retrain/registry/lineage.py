"""Where a version came from and what became of it: one query over jobs, routes and registry."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from penstock_retrain.errors import NoSuchVersion
from penstock_retrain.jobs.outbox import Entry, Outbox
from penstock_retrain.jobs.rows import Transition
from penstock_retrain.jobs.states import Job
from penstock_retrain.jobs.store import JobStore
from penstock_retrain.registry.store import Registry
from penstock_retrain.registry.versions import AliasChange, Version

__all__ = ["Lineage", "LineageReader"]


@dataclasses.dataclass(frozen=True)
class Lineage:
    """A version with everything that led to it and came of it.

    Attributes:
        version: The version.
        aliases: The aliases that name it now.
        job: The job that made it; its results hold dataset, training, gates and canary.
        transitions: What happened to the job, in order.
        alias_changes: Where the version came or went, in order.
        routes: The routes that the job wrote, in order.
    """

    version: Version
    aliases: Sequence[str]
    job: Job
    transitions: Sequence[Transition]
    alias_changes: Sequence[AliasChange]
    routes: Sequence[Entry]


class LineageReader:
    """Answers for every version, promoted, rolled back or rejected. Blocks: use a thread.

    Args:
        registry: Versions and aliases.
        jobs: The jobs that made them.
        outbox: The routes that these wrote.
    """

    def __init__(self, registry: Registry, jobs: JobStore, outbox: Outbox) -> None:
        self._registry = registry
        self._jobs = jobs
        self._outbox = outbox

    def of_number(self, model: str, number: int) -> Lineage:
        """That of a version by its number.

        Raises:
            NoSuchVersion: There is none.
        """
        return self._of(self._registry.version(model, number))

    def of_alias(self, model: str, alias: str) -> Lineage:
        """That of the version that an alias names.

        Raises:
            NoSuchVersion: It names none.
        """
        return self._of(self._registry.by_alias(model, alias))

    def of_job(self, model: str, job_id: str) -> Lineage:
        """That of the version that a job made.

        Raises:
            NoSuchJob: There is no such job.
            NoSuchVersion: It has made no version, or one of another model.
        """
        job = self._jobs.get(job_id)
        version = self._registry.by_job(job_id)
        if version is None or version.model != model:
            raise NoSuchVersion(
                f"job {job_id} has made no version of {model}: it is {job.state}; see: penstock "
                f"jobs show {job_id}",
                field="job_id",
            )
        return self._of(version)

    def _of(self, version: Version) -> Lineage:
        aliases = self._registry.aliases(version.model)
        changes = [
            change
            for change in self._registry.alias_history(version.model)
            if version.version in (change.from_version, change.to_version)
        ]
        return Lineage(
            version=version,
            aliases=sorted(name for name, number in aliases.items() if number == version.version),
            job=self._jobs.get(version.job_id),
            transitions=self._jobs.history(version.job_id),
            alias_changes=changes,
            routes=self._outbox.of_job(version.job_id),
        )
