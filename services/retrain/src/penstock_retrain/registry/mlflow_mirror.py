"""MLflow as the mirror of the registry: the only module that imports it, when it is made.

Each version is one run and one model version in MLflow, both tagged with the job's id and looked up
by it before anything is made, so that a killed process leaves one of each. Aliases follow ours.
"""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any

from penstock_retrain.jobs.states import STAGES, Facts, Job, JobState
from penstock_retrain.registry.mirror import MirrorError
from penstock_retrain.registry.versions import CHALLENGER, CHAMPION, Version

__all__ = ["MlflowMirror"]

TAG = "penstock.job_id"
MAX_PARAM = 500


class MlflowMirror:
    """Writes to an MLflow server.

    Args:
        uri: Its tracking URI, which is its registry's too.

    Raises:
        MirrorError: MLflow is not installed; the message names the extra.
    """

    def __init__(self, uri: str) -> None:
        try:
            from mlflow import MlflowClient
            from mlflow.exceptions import MlflowException
        except ImportError as error:
            raise MirrorError(
                "MLflow is not installed: install penstock-retrain[mlflow], or leave "
                "PENSTOCK_RETRAIN_MLFLOW_URI empty"
            ) from error
        self._client: Any = MlflowClient(tracking_uri=uri, registry_uri=uri)
        self._failure: type[Exception] = MlflowException

    def put(self, version: Version, aliases: Sequence[str], job: Job) -> None:
        """See `Mirror`."""
        try:
            run_id = self._run(version, job)
            number = self._version(version, run_id)
            self._show(version, number, aliases)
        except self._failure as error:
            raise MirrorError(f"MLflow refused {version.name}: {error}") from error
        except OSError as error:
            raise MirrorError(f"MLflow cannot be reached: {error}") from error

    def _run(self, version: Version, job: Job) -> str:
        experiment = self._client.get_experiment_by_name(version.model)
        found = (
            self._client.create_experiment(version.model)
            if experiment is None
            else experiment.experiment_id
        )
        runs = self._client.search_runs([found], f"tags.`{TAG}` = '{job.id}'", max_results=1)
        if runs:
            run = runs[0]
        else:
            run = self._client.create_run(found, tags={TAG: job.id, "mlflow.runName": version.name})
        run_id = str(run.info.run_id)
        known = dict(run.data.params)
        for name, value in _params(job).items():
            if name not in known:  # MLflow refuses another value of a parameter
                self._client.log_param(run_id, name, value)
        for name, number in _metrics(job.result(JobState.TRAINING)).items():
            if name not in run.data.metrics:
                self._client.log_metric(run_id, name, number)
        return run_id

    def _version(self, version: Version, run_id: str) -> str:
        name = version.model
        query = f"name = '{name}'"
        if not self._client.search_registered_models(query, max_results=1):
            self._client.create_registered_model(name, tags={"penstock": "mirror"})
        for found in self._client.search_model_versions(
            f"{query} and tags.`{TAG}` = '{version.job_id}'"
        ):
            return str(found.version)
        made = self._client.create_model_version(
            name,
            source=f"runs:/{run_id}/model",
            run_id=run_id,
            tags={TAG: version.job_id, "penstock.version": str(version.version)},
        )
        return str(made.version)

    def _show(self, version: Version, number: str, aliases: Sequence[str]) -> None:
        name = version.model
        tags = {
            "penstock.name": version.name,
            "penstock.status": str(version.status),
            "penstock.digest": version.digest,
            "penstock.kind": version.kind,
            "penstock.base_model": version.base_model,
            "penstock.retired": version.retired_reason,
        }
        for key, value in tags.items():
            if value:
                self._client.set_model_version_tag(name, number, key, value)
        if version.card:
            self._client.update_model_version(name, number, description=version.card)
        standing = self._client.get_model_version(name, number)
        for alias in (CHAMPION, CHALLENGER):
            if alias in aliases:
                self._client.set_registered_model_alias(name, alias, number)
            elif alias in standing.aliases:
                self._client.delete_registered_model_alias(name, alias)


def _params(job: Job) -> dict[str, str]:
    """What the stages found out, in so far as it is small, by `stage.name`."""
    found = {"cause": str(job.cause.kind), "incident": job.cause.id}
    for stage in STAGES[:3]:
        for name, value in job.result(stage).items():
            if isinstance(value, str | int | float | bool) and len(str(value)) <= MAX_PARAM:
                found[f"{stage}.{name}"] = str(value)
    return {name: value for name, value in found.items() if value}


def _metrics(facts: Facts) -> dict[str, float]:
    said = facts.get("metrics", {})
    items = said.items() if isinstance(said, dict) else ()
    return {str(n): float(v) for n, v in items if isinstance(v, numbers.Real)}
