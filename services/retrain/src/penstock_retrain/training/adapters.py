"""Adapters in PEFT's format, and weights in Hugging Face's: writing and reading them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from penstock_retrain.training.method import Setup
from penstock_retrain.training.models import load_model

__all__ = ["adapted", "copy_adapter", "export_adapter", "export_model", "lora_config", "merged"]

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
TASK = "CAUSAL_LM"


def lora_config(setup: Setup, *, dora: bool = False) -> Any:
    """PEFT's configuration of an adapter of low rank."""
    from peft import LoraConfig

    lora = setup.policy.lora
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.scale,
        lora_dropout=lora.dropout,
        target_modules="all-linear" if lora.modules == ("all-linear",) else list(lora.modules),
        use_dora=dora,
        task_type=TASK,
    )


def export_adapter(setup: Setup, checkpoint: Path, out: Path) -> None:
    """Writes a checkpoint's adapter, which names its base as engines do."""
    copy_adapter(checkpoint, out, setup.request.base_model)


def copy_adapter(source: Path, out: Path, base_model: str) -> None:
    """Copies an adapter's weights and configuration; it is of that model of the engines.

    Raises:
        OSError: A file is missing, or cannot be read.
        ValueError: Its configuration is none.
    """
    config = json.loads((source / CONFIG).read_text(encoding="utf-8"))
    if not isinstance(config, dict):
        raise ValueError(f"{CONFIG} is no JSON object")
    shutil.copyfile(source / WEIGHTS, out / WEIGHTS)
    # PEFT writes the path that the base was loaded from, which means nothing elsewhere.
    config["base_model_name_or_path"] = base_model
    (out / CONFIG).write_text(json.dumps(config, indent=1, sort_keys=True), encoding="utf-8")


def adapted(setup: Setup, directory: Path) -> Any:
    """The base model with the adapter of a directory."""
    from peft import PeftModel

    base = load_model(setup.request.base_path, setup.device)
    return PeftModel.from_pretrained(base, directory).eval()


def merged(setup: Setup, directory: Path) -> Any:
    """The base model with an adapter's change in its weights, which are float32."""
    from peft import PeftModel

    base = load_model(setup.request.base_path, setup.device, frozen=False)
    return PeftModel.from_pretrained(base, directory).merge_and_unload()


def export_model(setup: Setup, model: Any, out: Path) -> None:
    """Writes a whole model in the type that the base's weights are stored in."""
    from transformers import AutoConfig

    stored = AutoConfig.from_pretrained(setup.request.base_path, local_files_only=True).dtype
    if stored is not None:
        model = model.to(stored)
    model.save_pretrained(out)
    # One file less, and every version of vLLM and transformers reads the template from here.
    setup.tokenizer.save_pretrained(out, save_jinja_files=False)
