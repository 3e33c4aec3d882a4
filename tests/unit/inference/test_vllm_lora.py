"""What vLLM is started with for adapters, and weights that fit no model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from penstock_inference.engines.vllm_lora import lora_arguments, unfit_weights


def test_on_a_cpu_one_slot_stays_empty_whatever_is_loaded() -> None:
    # vllm#48421: there the base model's requests get the weights of the last slot.
    arguments = lora_arguments(on_cpu=True, mixed=2, loaded=5, rank=12)
    assert arguments == {
        "enable_lora": True,
        "max_loras": 6,
        "max_cpu_loras": 6,
        "max_lora_rank": 16,
    }


@pytest.mark.parametrize(("mixed", "loaded", "kept"), [(2, 5, 5), (4, 1, 4)])
def test_on_a_gpu_slots_are_what_a_batch_mixes(mixed: int, loaded: int, kept: int) -> None:
    arguments = lora_arguments(on_cpu=False, mixed=mixed, loaded=loaded, rank=8)
    assert (arguments["max_loras"], arguments["max_cpu_loras"]) == (mixed, kept)


@pytest.mark.parametrize(("rank", "kept"), [(1, 1), (2, 8), (16, 16), (17, 32), (512, 512)])
def test_ranks_are_those_that_vllm_knows(rank: int, kept: int) -> None:
    arguments = lora_arguments(on_cpu=True, mixed=1, loaded=1, rank=rank)
    assert arguments["max_lora_rank"] == kept


WIDTHS = {"model.layers.0.self_attn.q_proj": (12, 20)}


@pytest.mark.parametrize(
    ("width_in", "width_out", "unfit"),
    [(12, 20, ""), (11, 20, "lora_A.weight is 11 wide"), (12, 24, "lora_B.weight is 24 wide")],
)
def test_weights_of_other_widths_are_named(
    tmp_path: Path, width_in: int, width_out: int, unfit: str
) -> None:
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora"
    save_file(
        {
            f"{name}_A.weight": np.zeros((4, width_in), np.float32),
            f"{name}_B.weight": np.zeros((width_out, 4), np.float32),
            "base_model.model.unheard_of.lora_A.weight": np.zeros((4, 1), np.float32),
        },
        tmp_path / "adapter_model.safetensors",
    )
    assert unfit in unfit_weights(tmp_path, WIDTHS)
    assert bool(unfit) == bool(unfit_weights(tmp_path, WIDTHS))
    assert unfit_weights(tmp_path, {}) == ""


def test_weights_that_are_cut_short_are_named(tmp_path: Path) -> None:
    (tmp_path / "adapter_model.safetensors").write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00{}")
    assert "cannot be read" in unfit_weights(tmp_path, WIDTHS)
