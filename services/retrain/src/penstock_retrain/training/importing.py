"""Takes an adapter that was trained elsewhere as a training's result."""

from __future__ import annotations

import shutil
from pathlib import Path

from penstock.manifest import MANIFEST, ManifestError, digest_of, file_digests, verify
from penstock_retrain.training.adapters import copy_adapter
from penstock_retrain.training.errors import TrainingImpossible
from penstock_retrain.training.request import Kind, Trained, TrainingRequest
from penstock_retrain.training.runs import Run

__all__ = ["take_in"]


def take_in(request: TrainingRequest, imports: Path | None, run: Run) -> None:
    """Copies the adapter that a policy names; where it has a manifest, it has to verify. Blocks.

    Args:
        request: What is asked.
        imports: Where adapters are taken from; None where nothing is.
        run: The job's directory, which gets the result.

    Raises:
        TrainingFailed: Another process has the run's directory.
        TrainingImpossible: It cannot be taken; names the field and the remedy.
    """
    name = request.policy.imported.adapter
    if imports is None:
        raise TrainingImpossible(
            "training.method: imported, and this service takes nothing in; set "
            "PENSTOCK_RETRAIN_IMPORTS_DIR to the directory that holds the adapter"
        )
    source = imports / name
    with run.held(0):
        shutil.rmtree(run.half, ignore_errors=True)
        run.half.mkdir(parents=True)
        try:
            if (source / MANIFEST).exists():
                verify(source)
            copy_adapter(source, run.half, request.base_model)
        except (ManifestError, OSError, ValueError) as error:
            raise TrainingImpossible(
                f"training.imported.adapter: {source} is no adapter of PEFT's: {error}"
            ) from error
        run.finish(request, _imported(request))


def _imported(request: TrainingRequest) -> Trained:
    return Trained(
        request_digest=request.digest,
        kind=Kind.ADAPTER,
        steps=0,
        best_step=0,
        rows=0,
        held_out_rows=0,
        left_out={},
        base_digest=digest_of(file_digests(request.base_path)),
        metrics={},
        packages={},
    )
