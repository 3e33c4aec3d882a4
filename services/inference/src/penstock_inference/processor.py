"""What the machine's processor can do, as far as the choice of a dtype needs it."""

from __future__ import annotations

from pathlib import Path

__all__ = ["choose_dtype", "processor_flags"]


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
