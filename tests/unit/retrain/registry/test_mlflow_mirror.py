"""The mirror in a real MLflow, on a local store: one run and one version of each job."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from penstock_retrain.jobs.states import Job, JobState, Trigger
from penstock_retrain.registry.mirror import MirrorError, Mirroring
from penstock_retrain.registry.mlflow_mirror import TAG, MlflowMirror
from penstock_retrain.registry.versions import Version
from tests.unit.retrain.jobs.places import FOUND, Place

S, T = JobState, Trigger


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(f"sqlite:///{tmp_path}/retrain.sqlite")
    made.routed()
    yield made
    made.close()


@pytest.fixture
def uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    # MLflow's store in files needs no server and only the client's packages.
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return (tmp_path / "mlflow").as_uri()


def client(uri: str) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def aliases_of(uri: str) -> dict[str, int]:
    model = client(uri).get_registered_model("triage")
    return {alias: int(version) for alias, version in model.aliases.items()}


def versions(uri: str) -> list[Any]:
    return sorted(
        client(uri).search_model_versions("name = 'triage'"), key=lambda each: int(each.version)
    )


class Particular:
    """A mirror that takes no versions of one model: it does not like its name."""

    def __init__(self) -> None:
        self.shown: list[str] = []

    def put(self, version: Version, aliases: Sequence[str], job: Job) -> None:
        if version.model == "a/b":
            raise MirrorError("no such name")
        self.shown.append(version.name)


def test_a_version_that_the_mirror_refuses_holds_no_others_up(place: Place) -> None:
    mirror = Particular()
    mirroring = Mirroring(place.registry, place.store, mirror)
    for number, model in enumerate(("a/b", "triage")):
        place.routed(model)
        place.done(place.to(S.TRAINING, f"job-{number}", model))
    for _ in range(2):
        with pytest.raises(MirrorError):
            mirroring.step()
    assert mirror.shown == ["triage-v1"]


@pytest.mark.filterwarnings("ignore")  # MLflow's own
def test_versions_and_aliases_are_shown_once_each(place: Place, uri: str) -> None:
    mirroring = Mirroring(place.registry, place.store, MlflowMirror(uri))
    assert mirroring.step() == 0
    job = place.to(S.TRAINING)
    facts = {**FOUND[S.TRAINING], "metrics": {"loss": 0.25}, "method": "lora"}
    job = place.apply(job, T.DONE, facts=facts)
    assert mirroring.step() == 1
    job = place.done(job)
    job = place.done(job)
    # Killed between MLflow and SQL: the same is written again, to the same run and version.
    for version, aliases in place.registry.unmirrored():
        MlflowMirror(uri).put(version, sorted(aliases), place.store.get("job-1"))
    assert mirroring.step() == 1
    (shown,) = versions(uri)
    assert shown.tags[TAG] == "job-1"
    assert shown.tags["penstock.status"] == "registered"
    assert shown.description == "#"
    assert aliases_of(uri) == {"challenger": int(shown.version)}
    run = client(uri).get_run(shown.run_id)
    assert run.data.tags[TAG] == "job-1"
    assert run.data.params["training.method"] == "lora"
    assert run.data.metrics == {"loss": 0.25}
    place.apply(place.done(job), T.PROMOTE)
    assert mirroring.step() == 1
    assert aliases_of(uri) == {"champion": int(shown.version)}
    assert mirroring.step() == 0
    place.apply(place.to(S.CANARY, "job-2"), T.PROMOTE)
    mirroring.step()
    assert len(versions(uri)) == 2
    assert aliases_of(uri) == {"champion": int(versions(uri)[1].version)}
