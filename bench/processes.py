"""What a stack's processes use: CPU time and memory by part, read from /proc."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from penstock_native.processes import marked, tree

__all__ = ["CPU_PARTS", "Usage", "parts_of_stack", "spent", "usage_of"]

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")

# What a command line says about the part that a process plays; the first that fits counts.
_SIGNS = (
    ("pump", "ray::ServeReplica:penstock"),
    ("engine", "ray::ServeReplica:engine-"),
    ("core", "VLLM::"),
    ("broker", "kafka.Kafka"),
    ("ingest", "-m penstock_ingest"),
)
CPU_PARTS = ("broker", "ingest", "pump", "engine", "rest")  # rest: Ray itself, supervisord


@dataclasses.dataclass(frozen=True)
class Usage:
    """What a part has used so far.

    Attributes:
        cpu_s: Seconds of CPU time, user and system.
        rss_mib: Resident memory.
    """

    cpu_s: float
    rss_mib: float


def parts_of_stack(state_dir: Path) -> dict[int, str]:
    """The live processes of a stack, by id, with the part that each plays."""
    found = {}
    for process in marked("PENSTOCK_NATIVE_STACK", str(state_dir)):
        found[process.pid] = _part(process.pid)
    return found


def usage_of(pids: Mapping[int, str]) -> dict[str, Usage]:
    """What each part has used, in all its processes."""
    total: dict[str, Usage] = {}
    for pid, part in pids.items():
        usage = _usage(pid)
        if usage is not None:
            before = total.get(part, Usage(0.0, 0.0))
            total[part] = Usage(before.cpu_s + usage.cpu_s, before.rss_mib + usage.rss_mib)
    return total


def spent(before: Mapping[str, Usage], after: Mapping[str, Usage]) -> dict[str, float]:
    """Seconds of CPU time between two looks at the same processes, by part."""
    return {part: after[part].cpu_s - before[part].cpu_s for part in after if part in before}


def cpu_of_trees(roots: Iterable[int]) -> float:
    """Seconds of CPU time that processes and their descendants have used, while they live."""
    pids = {identity.pid for root in roots for identity in tree(root)}
    return sum(usage.cpu_s for pid in pids if (usage := _usage(pid)) is not None)


def _part(pid: int) -> str:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return "rest"
    return next((part for part, sign in _SIGNS if sign in command), "rest")


def _usage(pid: int) -> Usage | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    ticks = int(fields[11]) + int(fields[12])
    return Usage(ticks / _TICKS_PER_S, int(fields[21]) * _PAGE / 2**20)
