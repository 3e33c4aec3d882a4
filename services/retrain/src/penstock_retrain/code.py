"""Which code did something: what lineage names beside rows and parameters."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from importlib import metadata, resources
from pathlib import Path

__all__ = ["code_version"]


@functools.cache
def code_version(package: str) -> Mapping[str, str]:
    """The distribution's version, and a digest of a package's source, subpackages included."""
    total = hashlib.sha256()
    root = Path(str(resources.files(package)))
    for file in sorted(root.rglob("*.py"), key=lambda each: each.relative_to(root).as_posix()):
        total.update(f"{file.relative_to(root).as_posix()}\n".encode() + file.read_bytes())
    return {
        "package": f"penstock-retrain {metadata.version('penstock-retrain')}",
        "source": total.hexdigest(),
    }
