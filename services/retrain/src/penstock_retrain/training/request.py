"""What a training is asked for and what comes of it, as data that crosses processes. Pure."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

from penstock_retrain.training.policy import TrainingPolicy

__all__ = ["FORMAT", "Kind", "Resources", "Trained", "TrainingRequest"]

FORMAT = 1


class Kind(StrEnum):
    """What a training makes."""

    ADAPTER = "adapter"  # PEFT's format: adapter_config.json and adapter_model.safetensors
    FULL = "full"  # a whole Hugging Face directory, tokenizer included


@dataclasses.dataclass(frozen=True)
class TrainingRequest:
    """What is to be trained, on what, and how.

    Attributes:
        job_id: Whose training it is.
        base_model: The engine's name of the model that is changed.
        base_path: Its directory.
        dataset_path: The dataset's directory.
        dataset_digest: What it must hold.
        policy: Method and hyperparameters.
        code: The version of the code that trains.
    """

    job_id: str
    base_model: str
    base_path: Path
    dataset_path: Path
    dataset_digest: str
    policy: TrainingPolicy
    code: Mapping[str, str]

    @property
    def digest(self) -> str:
        """The same for the same training, wherever its files lie: SHA-256, hexadecimal.

        The code is no part of it: an update of the service must not undo hours of training.
        """
        said = {
            "format": FORMAT,
            "job_id": self.job_id,
            "base_model": self.base_model,
            "dataset": self.dataset_digest,
            "policy": self.policy.parameters(),
        }
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "job_id": self.job_id,
            "base_model": self.base_model,
            "base_path": str(self.base_path),
            "dataset_path": str(self.dataset_path),
            "dataset_digest": self.dataset_digest,
            "policy": self.policy.parameters(),
            "code": dict(self.code),
        }

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> TrainingRequest:
        """The request of a document.

        Raises:
            KeyError: It lacks a field.
            TrainingImpossible: Its policy is none.
        """
        return cls(
            job_id=document["job_id"],
            base_model=document["base_model"],
            base_path=Path(document["base_path"]),
            dataset_path=Path(document["dataset_path"]),
            dataset_digest=document["dataset_digest"],
            policy=TrainingPolicy.of(document["policy"]),
            code=dict(document["code"]),
        )


@dataclasses.dataclass(frozen=True)
class Trained:
    """What came of a training: `training.json` beside the weights.

    Attributes:
        request_digest: Of the request that it answers.
        kind: What the directory holds.
        steps: Optimiser steps that were made.
        best_step: The step whose weights these are.
        rows: How many were trained on.
        held_out_rows: How many were measured on.
        left_out: Rows that were not used, by reason.
        base_digest: SHA-256 of the base model's files with their names.
        metrics: Numbers by name, with the unit in it where they have one.
        packages: Versions of the libraries that trained.
    """

    request_digest: str
    kind: Kind
    steps: int
    best_step: int
    rows: int
    held_out_rows: int
    left_out: Mapping[str, int]
    base_digest: str
    metrics: Mapping[str, float]
    packages: Mapping[str, str]

    def document(self, request: TrainingRequest) -> dict[str, Any]:
        """As JSON, with what was asked for; without paths, which mean nothing elsewhere."""
        asked = request.document()
        del asked["base_path"], asked["dataset_path"]
        made = {**dataclasses.asdict(self), "kind": self.kind.value}
        return {"format": FORMAT, **asked, "seed": request.policy.seed, **made}

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Trained:
        """What a document says.

        Raises:
            KeyError: It lacks a field.
            ValueError: It is of another format, or its kind is none.
        """
        if document["format"] != FORMAT:
            raise ValueError(f"format {document['format']}, and {FORMAT} is read here")
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(**{**{name: document[name] for name in names}, "kind": Kind(document["kind"])})


@dataclasses.dataclass(frozen=True)
class Resources:
    """What a training may use, and how often it is tried before its attempt counts as failed.

    Attributes:
        ray_address: The cluster that it runs on; empty starts a Ray of its own, for its time only.
        cpus: Cores.
        gpus: GPUs.
        memory_mib: Memory, MiB; 0 reserves none.
        retries: How often it is started again within an attempt when its process dies.
    """

    ray_address: str = ""
    cpus: float = 1.0
    gpus: float = 0.0
    memory_mib: int = 0
    retries: int = 2
