"""Hyperparameters: what they may be, and errors that name the field and the remedy."""

from __future__ import annotations

from typing import Any

import pytest

from penstock_retrain.jobs.policy import parse_policy
from penstock_retrain.training.errors import TrainingImpossible
from penstock_retrain.training.methods import METHODS
from penstock_retrain.training.policy import MethodName, TrainingPolicy
from penstock_retrain.training.request import Kind


def test_an_empty_part_of_the_default_policy_is_a_lora_adapter() -> None:
    policy = TrainingPolicy.of(parse_policy("").training)
    assert (policy.method, policy.peak_rate, policy.lora.scale) == (MethodName.LORA, 2e-4, 32.0)
    assert (policy.batch_size, policy.at_once) == (16, 16)


def test_one_setting_chooses_the_method() -> None:
    document = "training: {method: %s, lora: {rank: 4}}"
    found = {
        name: TrainingPolicy.of(parse_policy(document % name).training).method for name in METHODS
    }
    assert found == {name: name for name in MethodName if name is not MethodName.IMPORTED}
    assert {name: method.kind for name, method in METHODS.items()} == {
        MethodName.LORA: Kind.ADAPTER,
        MethodName.DORA: Kind.FULL,  # merged: engines load no such adapters
        MethodName.FULL: Kind.FULL,
        MethodName.DPO: Kind.ADAPTER,
    }


@pytest.mark.parametrize(
    ("method", "rate"), [("lora", 2e-4), ("dora", 2e-4), ("full", 2e-5), ("dpo", 5e-6)]
)
def test_a_method_has_its_usual_rate_unless_one_is_named(method: str, rate: float) -> None:
    assert TrainingPolicy.of({"method": method}).peak_rate == rate
    assert TrainingPolicy.of({"method": method, "learning_rate": 0.01}).peak_rate == 0.01


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (
            {"method": "qlora"},
            r"training\.method: .*'lora', 'dora', 'full', 'dpo' or 'imported' \(it is 'qlora'\)",
        ),
        ({"method": "imported"}, r"training: method imported needs imported\.adapter"),
        (
            {"method": "imported", "imported": {"adapter": "../x"}},
            r"training\.imported\.adapter: ",
        ),
        ({"epoch": 3}, r"training\.epoch: not known; did you mean epochs\?"),
        ({"lora": {"ranks": 3}}, r"training\.lora\.ranks: not known; did you mean rank\?"),
        ({"nonsense": 3}, r"training\.nonsense: not known; remove it"),
        ({"learning_rate": float("nan")}, r"training\.learning_rate: "),
        ({"learning_rate": 0}, r"training\.learning_rate: .*greater than 0 \(it is 0\)"),
        ({"batch_size": 10, "micro_batch_size": 4}, r"batch_size \(10\) is no multiple of"),
        (
            {"lora": {"modules": ["all-linear", "q_proj"]}},
            r"training\.lora: modules is `all-linear`",
        ),
        ({"lora": {"rank": 0}}, r"training\.lora\.rank: "),
        ({"evaluation": {"patience": -1}}, r"training\.evaluation\.patience: "),
        ({"dpo": {"beta": 0}, "epochs": 0}, r"training\.epochs: .*; training\.dpo\.beta: "),
    ],
)
def test_errors_name_the_field_and_the_remedy(written: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainingImpossible, match=message):
        TrainingPolicy.of(written)


def test_parameters_make_the_same_policy_again() -> None:
    policy = TrainingPolicy.of({"method": "dpo", "dpo": {"sft_weight": 0.5}, "max_steps": 7})
    assert TrainingPolicy.of(policy.parameters()) == policy
