"""Methods of training, one file each: `METHODS` says which there are."""

from __future__ import annotations

from collections.abc import Mapping

from penstock_retrain.training.method import Method
from penstock_retrain.training.methods.dora import Dora
from penstock_retrain.training.methods.dpo import Dpo
from penstock_retrain.training.methods.full import Full
from penstock_retrain.training.methods.lora import Lora
from penstock_retrain.training.policy import MethodName

__all__ = ["METHODS"]

METHODS: Mapping[MethodName, Method] = {
    MethodName.LORA: Lora(),
    MethodName.DORA: Dora(),
    MethodName.FULL: Full(),
    MethodName.DPO: Dpo(),
}
