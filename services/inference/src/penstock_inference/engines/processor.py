"""How vLLM is to use the machine's processor: the dtype, its threads, its processes, AMX."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

__all__ = ["choose_dtype", "permit_amx", "processor_flags", "thread_environment"]

# A machine this small is shared with Kafka, the pump and Ray.
FEW_CORES = 4
BINDING = "VLLM_CPU_OMP_THREADS_BIND"


def processor_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """The first processor's feature flags; empty where Linux does not tell."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return frozenset()
    for line in lines:
        if line.startswith("flags"):
            return frozenset(line.partition(":")[2].split())
    return frozenset()


def choose_dtype(setting: str, *, gpu: bool, flags: frozenset[str]) -> str:
    """The dtype to load a model with.

    On a processor without AVX512-BF16 or AMX, bfloat16 is emulated and five times slower than
    float32; with either it is about three times faster.
    """
    if setting != "auto":
        return setting
    if gpu or flags & {"avx512_bf16", "amx_bf16"}:
        return "bfloat16"
    return "float32"


def thread_environment(environment: Mapping[str, str], *, gpu: bool, cores: int) -> dict[str, str]:
    """What to set before vLLM is imported; nothing where it decides well, or an operator did.

    On a processor vLLM keeps the model's worker in a process of its own, which core and worker
    poll each other's memory for, and pins its threads. On few cores the polling takes 7 of 16 ms
    of CPU time a request, and a pinned thread waits for its core while another one is idle
    (docs/decisions/0013). One core is left to everything else, as vLLM leaves it.
    """
    if gpu or cores > FEW_CORES or BINDING in environment:
        return {}
    return {
        BINDING: "nobind",
        "OMP_NUM_THREADS": str(max(1, cores - 1)),
        # The worker runs in the process of vLLM's core, which is apart from ours as ever.
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    }


def permit_amx() -> None:
    """Asks Linux for AMX's tiles, where the processor has them; a plugin of vLLM.

    vLLM 0.32's attention uses them without asking, and whoever does that is killed by SIGILL. On
    most models another library has asked before; not on small ones, whose first prompt is the end.
    """
    import torch

    if torch.cpu._is_amx_tile_supported():
        torch.cpu._init_amx()
