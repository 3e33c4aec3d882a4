"""Has Ray run one training, and ends when it has: the process that the stage starts.

    python -m penstock_retrain.training.driver --run .penstock/retrain/training/JOB

Ray stays out of the service this way: its signal handlers, its memory, and its end when its head
dies. Where no cluster is named, the Ray that it starts ends with it, however it ends.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import shutil
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from penstock_retrain.training.request import Resources
from penstock_retrain.training.runs import ray_folder
from penstock_retrain.training.task import train

__all__ = ["TRAINED", "command", "main"]

TRAINED, IMPOSSIBLE, ORPHANED = 0, 3, 4
# Ray's least is 75 MB; nothing large goes through it here.
OBJECT_STORE_BYTES = 100 * 1024 * 1024
# A head that died is not waited for: the attempt fails and the next one goes on.
HEAD_S = 10


def command(run: Path, resources: Resources) -> list[str]:
    """The arguments that start this module."""
    return [
        "-m",
        "penstock_retrain.training.driver",
        f"--run={run}",
        f"--ray-address={resources.ray_address}",
        f"--cpus={resources.cpus:g}",
        f"--gpus={resources.gpus:g}",
        f"--memory-mib={resources.memory_mib}",
        f"--retries={resources.retries}",
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a training; returns 0 with a result, 3 where there can be none.

    Raises:
        Exception: Ray's, or the training's: another attempt may succeed.
    """
    asked = _parser().parse_args(arguments)
    if asked.until_stdin_ends:
        threading.Thread(target=_end_with_stdin, daemon=True).start()
    resources = Resources(
        asked.ray_address, asked.cpus, asked.gpus, asked.memory_mib, asked.retries
    )
    run = asked.run.resolve()
    # Of this process alone: what another one left is not waited for, nor removed under its feet.
    with _ray(resources, ray_folder(run) / str(os.getpid())) as ray:
        task = ray.remote(train).options(
            name=f"training {run.name}",
            num_cpus=resources.cpus,
            num_gpus=resources.gpus,
            memory=resources.memory_mib * 1024 * 1024 or None,
            max_retries=resources.retries,
        )
        done = ray.get(task.remote(str(run), resources.cpus, resources.gpus))
    return TRAINED if done else IMPOSSIBLE


@contextlib.contextmanager
def _ray(resources: Resources, folder: Path) -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", str(HEAD_S))
    # Ray announces a change of what tasks without GPUs see; they compute on the CPU either way.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    if resources.ray_address:
        ray.init(address=resources.ray_address, namespace="penstock", log_to_driver=False)
        try:
            yield ray
        finally:
            ray.shutdown()
        return
    ray.init(
        address="local",  # never somebody else's cluster on this machine
        namespace="penstock",
        include_dashboard=False,
        num_cpus=max(1, math.ceil(resources.cpus)),
        num_gpus=math.ceil(resources.gpus),
        object_store_memory=OBJECT_STORE_BYTES,
        _temp_dir=str(folder),
        _node_ip_address="127.0.0.1",
        log_to_driver=False,
    )
    try:
        yield ray
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def _end_with_stdin() -> None:
    """Whoever started this process holds its standard input: when it ends, so does this."""
    while sys.stdin.buffer.read(1024):
        pass
    # Ray's processes notice: the kernel ends them with the one that started them.
    os._exit(ORPHANED)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m penstock_retrain.training.driver",
        description="Have Ray run a training that was prepared, or go on with it.",
    )
    usual = Resources()
    add = parser.add_argument
    add("--run", type=Path, required=True, help="the training's directory")
    add("--ray-address", default=usual.ray_address, help="a cluster's; empty starts one")
    add("--cpus", type=float, default=usual.cpus, help="cores")
    add("--gpus", type=float, default=usual.gpus)
    add("--memory-mib", type=int, default=usual.memory_mib, help="0 reserves none")
    add("--retries", type=int, default=usual.retries, help="when its process dies")
    add("--until-stdin-ends", action="store_true", help="end when standard input does")
    return parser


if __name__ == "__main__":
    sys.exit(main())
