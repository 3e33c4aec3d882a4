"""Datasets of triage tickets whose rule has changed, as the stage before training writes them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from examples.triage.evaluate import MODEL
from examples.triage.generate import Corpus, Rule, generate
from examples.triage.generate import Split as Side
from penstock_retrain.dataset.examples import Example, Pool, Split
from penstock_retrain.dataset.rows import Message
from penstock_retrain.dataset.writing import Dataset, Lineage, write_dataset
from penstock_retrain.training.policy import TrainingPolicy
from penstock_retrain.training.request import TrainingRequest

__all__ = ["asked", "write_triage"]


def write_triage(path: Path, *, train: int, held_out: int) -> Dataset:
    """Tickets under the changed rule; what the old rule says is the answer that was rejected."""
    splits = {
        Split.TRAIN: _examples(Side.TRAIN, train),
        Split.VALIDATION: _examples(Side.HELD_OUT, held_out),
    }
    return write_dataset(path, splits, Lineage({}, {}, {}, {}))


def asked(dataset: Dataset, policy: dict[str, object], base: Path = MODEL) -> TrainingRequest:
    """The request of a job with this dataset."""
    return TrainingRequest(
        job_id="job-1",
        base_model="triage",
        base_path=base,
        dataset_path=dataset.path,
        dataset_digest=dataset.digest,
        policy=TrainingPolicy.of(policy),
        code={"source": "tests"},
    )


def _examples(side: Side, count: int) -> Sequence[Example]:
    made = []
    old = generate(Corpus(side), count)
    for number, (ticket, before) in enumerate(
        zip(generate(Corpus(side, rule=Rule.CHANGED), count), old, strict=True)
    ):
        target, rejected = json.dumps(ticket["expected"]), json.dumps(before["expected"])
        made.append(
            Example(
                id=f"{side}-{number:05d}",
                group=f"{side}-{number}",
                messages=(Message("user", ticket["text"]),),
                prompt="",
                target=target,
                rejected=None if rejected == target else rejected,
                label_source="correction",
                labels={},
                time_ms=number,
                pool=Pool.RECENT,
            )
        )
    return made
