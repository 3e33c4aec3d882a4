"""What runs in a process of Ray's: one training, from its directory to its result."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from penstock_retrain.training.errors import TrainingImpossible
from penstock_retrain.training.methods import METHODS
from penstock_retrain.training.runs import Run

__all__ = ["train"]

# How long another process may go on that trains in the same directory.
LOCK_S = 900.0


def train(path: str, cpus: float = 1.0, gpus: float = 0.0) -> bool:
    """Trains what a directory asks for, or goes on with it; does nothing where it is done.

    Returns:
        Whether there is a result. Where there is none, the directory says why it is impossible.

    Raises:
        TrainingFailed: Another process has the directory.
        Exception: Whatever the libraries raise: tried again, it goes on from its last checkpoint.
    """
    run = Run(Path(path))
    with run.held(LOCK_S):
        request = run.request()
        if run.trained(request) is not None:
            return True
        try:
            _configure(cpus)
            from penstock_retrain.training.fitting import fit

            with _quiet():
                fit(request, METHODS[request.policy.method], run, run.report, gpus=gpus)
        except TrainingImpossible as error:
            run.refuse(str(error))
            return False
        return True


def _configure(cpus: float) -> None:
    # A base model is a directory: nothing is looked up anywhere.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        import datasets
        import peft
        import torch
        import transformers
        import trl
    except ImportError as error:
        raise TrainingImpossible(
            f"{error.name} is not installed where Ray runs trainings: install "
            "penstock-retrain[training] there"
        ) from error
    del peft
    torch.set_num_threads(max(1, round(cpus)))
    datasets.disable_progress_bars()
    # TRL shows ends of prompts in a warning: no text of requests belongs in a log.
    logging.getLogger(trl.__name__).setLevel(logging.ERROR)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the trainer's printed logs from a log that nobody reads: they are in the progress."""
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield
