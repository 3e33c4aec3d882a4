"""The stage `registering`: a version's files go where engines find them, signed, with a card."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from penstock.manifest import (
    MANIFEST,
    ManifestError,
    digest_of,
    file_digests,
    verify,
    write_manifest,
)
from penstock.signing import SigningKey
from penstock_retrain.jobs.stages import (
    Candidate,
    Desk,
    NotYet,
    Outcome,
    Progress,
    StageBroken,
    StageResult,
)
from penstock_retrain.jobs.states import Job, JobState
from penstock_retrain.registry.card import model_card
from penstock_retrain.registry.store import Registry
from penstock_retrain.registry.versions import Version

__all__ = ["RegisteringStage"]

CARD = "README.md"


class RegisteringStage:
    """Puts what a training made into the directory of a version, named like it.

    The directory is made beside its place and renamed, so that an engine sees all of it or nothing.
    Each run makes one of its own: a copy that was cancelled goes on in its thread.

    Args:
        desk: Says whose job it is, and what the route names.
        registry: Where versions are.
        adapters: The directory that engines load adapters from.
        models: The directory that full weights go to.
        key: Signs the manifest.
    """

    def __init__(
        self, desk: Desk, registry: Registry, adapters: Path, models: Path, key: SigningKey
    ) -> None:
        self._desk = desk
        self._registry = registry
        self._places = {"adapter": adapters, "full": models}
        self._key = key

    async def run(self, job: Job, progress: Callable[[Progress], None]) -> StageResult:
        """See `penstock_retrain.jobs.stages.Stage`.

        Needs of what training found out: `dir`, the directory with the weights. Takes of what the
        gates found out: `attachments`, files by the name that they have beside the weights.
        """
        progress(Progress("copying the weights"))
        version = await asyncio.to_thread(self._version, job)
        place = await asyncio.to_thread(self._place, version)
        was_there = await asyncio.to_thread(place.exists)
        if not was_there:
            made = await asyncio.to_thread(self._copied, job, version, place)
            # Copying took a while: who has lost the job meanwhile puts nothing there.
            await self._desk.note(job, {})
            await asyncio.to_thread(_put, made, place)
        result = await asyncio.to_thread(self._found, version, place)
        if was_there:
            await asyncio.to_thread(_check_trained, job, place)
        return result

    async def clean(self, job: Job) -> None:
        """Removes what is half made; of a version that may not come back also its files.

        One that was rejected was never registered. One that was rolled back, failed or was
        aborted is retired: its lineage stays, its weights go, once no route names it.
        """
        version = await asyncio.to_thread(self._registry.by_job, job.id)
        if version is None:
            return
        await asyncio.to_thread(self._sweep, version)
        if job.state is JobState.PROMOTED or not version.retired_us:
            return
        # Somebody else may have put it back since.
        standing = await self._desk.standing(job, Candidate(version.name, version.base_model))
        if standing.names_candidate or not standing.published:
            raise NotYet(f"{version.name} is retired, and the route of {job.model} may name it")
        await asyncio.to_thread(self._remove, version)

    def _found(self, version: Version, place: Path) -> StageResult:
        try:
            digest = verify(place)
        except ManifestError as error:
            # Not ours to mend: somebody wrote into a place that is written once.
            raise StageBroken(f"{place} is there and is not what was signed: {error}") from error
        facts = {
            "name": version.name,
            "version": version.version,
            "base_model": version.base_model if version.kind == "adapter" else version.name,
            "adapter": version.name if version.kind == "adapter" else "",
            "digest": digest,
            "dir": str(place),
            "key": self._key.id,
            "card": (place / CARD).read_text(encoding="utf-8"),
        }
        return StageResult(Outcome.DONE, facts)

    def _copied(self, job: Job, version: Version, place: Path) -> Path:
        """All that goes to a place, in a directory of this run's own."""
        source = _source(job)
        half = _half(place)
        half.mkdir(exist_ok=True)
        inside = Path(tempfile.mkdtemp(dir=half)) / place.name
        # Links are followed: a version depends on nothing outside of it.
        shutil.copytree(source, inside, ignore=shutil.ignore_patterns(MANIFEST, CARD))
        card = model_card(job, version, digest=digest_of(file_digests(inside)))
        (inside / CARD).write_text(card, encoding="utf-8")
        for name, path in _attachments(job).items():
            shutil.copyfile(path, inside / name)
        write_manifest(inside, self._key)
        return inside

    def _sweep(self, version: Version) -> None:
        half = _half(self._place(version))
        shutil.rmtree(half, ignore_errors=True)
        if half.exists():
            raise NotYet(f"somebody still writes into {half}")

    def _remove(self, version: Version) -> None:
        place = self._place(version)
        # Renamed first: what an engine finds is whole until it is gone.
        gone = place.with_name(f".{place.name}.gone")
        if gone.exists():  # a killed run left it
            shutil.rmtree(gone)
        if place.exists():
            place.rename(gone)
            shutil.rmtree(gone)

    def _version(self, job: Job) -> Version:
        found = self._registry.by_job(job.id)
        if found is None:
            raise StageBroken(f"job {job.id} has made no version: it was not trained")
        return found

    def _place(self, version: Version) -> Path:
        place = self._places[version.kind]
        place.mkdir(parents=True, exist_ok=True)
        return place / version.name


def _source(job: Job) -> Path:
    """Where the training has left the weights."""
    source = Path(str(job.result(JobState.TRAINING).get("dir", "")))
    if not source.is_dir() or not any(source.iterdir()):
        raise StageBroken(f"training said that the weights are in {source}: nothing is there")
    return source


def _attachments(job: Job) -> dict[str, str]:
    """Files that go with the version, by the name that they have there."""
    found = job.result(JobState.EVALUATING).get("attachments", {})
    return {Path(name).name: str(path) for name, path in found.items()}


def _check_trained(job: Job, place: Path) -> None:
    """Refuses what stands under a version's name and is not what its job trained."""
    if _weights(job, place) != _weights(job, _source(job)):
        # Of a database that is gone, or older than the directory: gates saw other weights.
        raise StageBroken(
            f"{place} is there and is not what job {job.id} trained: move it away, and start "
            "another job"
        )


def _weights(job: Job, directory: Path) -> dict[str, str]:
    """What training made of a directory's files, without what comes beside it here."""
    beside = {MANIFEST, CARD, *_attachments(job)}
    found = file_digests(directory)
    return {name: each for name, each in found.items() if Path(name).name not in beside}


def _half(place: Path) -> Path:
    """Where runs make what goes to a place, each in a directory of its own."""
    return place.with_name(f".{place.name}.half")


def _put(made: Path, place: Path) -> None:
    if not place.exists():
        made.rename(place)
    shutil.rmtree(_half(place), ignore_errors=True)
