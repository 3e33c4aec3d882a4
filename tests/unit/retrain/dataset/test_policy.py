"""A policy's part `dataset`: defaults, and errors that name the field."""

from __future__ import annotations

import pytest

from penstock_retrain.dataset import policy as module
from penstock_retrain.dataset.errors import PolicyError
from penstock_retrain.dataset.policy import DatasetPolicy, LabelSource, PersonalData


def test_the_documented_policy_is_valid_and_the_empty_one_is_the_default() -> None:
    documented = (module.__doc__ or "").split("\n\n", 1)[1].replace("\n    ", "\n")
    policy = DatasetPolicy.parse(documented)
    assert policy.balance is not None
    assert (policy.label_field, policy.balance.max_share, policy.replay.share) == (
        "category",
        0.4,
        0.3,
    )
    assert DatasetPolicy.parse("") == DatasetPolicy.parse("start: {}") == DatasetPolicy()
    assert DatasetPolicy().labels == (LabelSource.CORRECTION, LabelSource.LABEL)
    assert DatasetPolicy().personal_data is PersonalData.REDACT


def test_parameters_are_all_of_it() -> None:
    policy = DatasetPolicy.parse("dataset: {seed: 4, near_duplicates: null}")
    assert DatasetPolicy.of(policy.parameters()) == policy


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dataset: {recnt_s: 3}", "dataset.recnt_s"),
        ("dataset: {replay: {share: 1}}", "dataset.replay.share"),
        ("dataset: {recent_s: .nan}", "dataset.recent_s"),
        ("dataset: {split: {validation: 0.5, golden: 0.45}}", "dataset.split"),
        ("dataset: {labels: [teacher]}", "a teacher is set where"),
        ("dataset: {labels: [label, label]}", "each once"),
        ("dataset: {balance: {by: colour}}", "dataset.balance.by"),
        ("dataset: {min_rows: 9, max_rows: 3}", "min_rows is above"),
        ("dataset: 3", "dataset: it is no mapping"),
        ("seed: 3", "put it under dataset:"),
        ("- 1", "no mapping"),
        ("a: [", "no YAML"),
    ],
)
def test_a_mistake_is_named(text: str, message: str) -> None:
    with pytest.raises(PolicyError, match=message.replace("[", r"\[")):
        DatasetPolicy.parse(text)
