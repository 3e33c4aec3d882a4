"""What every contender of the throughput benchmark gets: the same model, prompts and bounds.

All answers have the same length. penstock's requests know no `ignore_eos`, which would exist for
benchmarks only, so the model never ends an answer: a copy of examples/triage/model, with the same
weights, whose token for the end is one that it does not draw (padding).
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from report import machine

__all__ = [
    "MAX_TOKENS",
    "OUTSTANDING",
    "SLOTS",
    "dtype",
    "endless_model",
    "engine_arguments",
    "quiet_environment",
    "tickets",
]

ROOT = Path(__file__).parent.parent
MODEL = ROOT / "examples/triage/model"
TICKETS = ROOT / "examples/triage/tickets.jsonl"
MAX_TOKENS = 64
SLOTS = 128  # sequences that the engine runs at a time: max_num_seqs
# What a client keeps under way: what penstock's pump sends to an engine with that many slots.
OUTSTANDING = 160
KV_CACHE_GIB = 1
NAME = "triage"
SEED = 0


def endless_model(folder: Path) -> Path:
    """Makes the copy that never ends an answer; returns its directory."""
    target = folder / "endless"
    target.mkdir()
    for source in MODEL.iterdir():
        shutil.copyfile(source, target / source.name)
    _change(target / "config.json", eos_token_id=0)
    _change(target / "tokenizer_config.json", eos_token="<|pad|>")
    (target / "generation_config.json").write_text('{"eos_token_id": 0, "pad_token_id": 0}\n')
    return target


def dtype() -> str:
    """The number format that suits the processor, as the engine chooses it."""
    return "bfloat16" if "avx512_bf16" in machine()["vector"] else "float32"


def engine_arguments(model: Path) -> dict[str, object]:
    """Arguments of vLLM's engine, where a contender takes any."""
    return {
        "model": str(model),
        "served_model_name": [NAME],
        "dtype": dtype(),
        "max_num_seqs": SLOTS,
        "enable_prefix_caching": True,
        "seed": SEED,
    }


def quiet_environment() -> dict[str, str]:
    """The environment of every contender's processes."""
    return {
        **os.environ,
        "VLLM_CPU_KVCACHE_SPACE": str(KV_CACHE_GIB),
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def tickets(count: int) -> list[str]:
    """The texts of the first tickets."""
    lines = TICKETS.read_text(encoding="utf-8").splitlines()[:count]
    return [json.loads(line)["text"] for line in lines]


def _change(path: Path, **values: object) -> None:
    document = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**document, **values}, indent=2), encoding="utf-8")
