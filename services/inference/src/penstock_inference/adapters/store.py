"""LoRA adapters on disk: found by name, checked before an engine sees them."""

from __future__ import annotations

import json
import re
from pathlib import Path

from penstock.manifest import ManifestError, Signatures, verify
from penstock_inference.engines.errors import AdapterUnusable
from penstock_inference.engines.generation import Adapter

__all__ = ["AdapterStore"]

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"  # never a pickle
# One path component, which is no hidden one and not the directory above.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class AdapterStore:
    """A directory with a sub-directory in PEFT's format for each adapter, named like it.

    Args:
        directory: The directory.
        signers: Whose signature every adapter's manifest must carry; None asks for none.
    """

    def __init__(self, directory: Path, signers: Signatures | None = None) -> None:
        self._directory = directory
        self._signers = signers

    def find(self, name: str) -> Adapter:
        """The adapter of a name, its files verified. Reads them all: blocks.

        Raises:
            AdapterUnusable: It is not there, not complete, not what its manifest says, or not
                signed as it must be.
        """
        if not _NAME.fullmatch(name):
            raise AdapterUnusable(f"{name!r} is no adapter's name: letters, digits, . _ - only")
        path = self._directory / name
        if not path.is_dir():
            raise AdapterUnusable(f"there is no directory {path}: put the adapter's files there")
        if not path.resolve().is_relative_to(self._directory.resolve()):
            raise AdapterUnusable(f"{path} leads out of {self._directory}: copy the files there")
        for required in (CONFIG, WEIGHTS):
            if not (path / required).is_file():
                raise AdapterUnusable(f"{path} has no {required}: save the adapter with PEFT")
        try:
            config = json.loads((path / CONFIG).read_text(encoding="utf-8"))
            if not isinstance(config, dict) or config.get("peft_type") != "LORA":
                raise AdapterUnusable(f"{path / CONFIG} describes no LoRA adapter")
            return Adapter(name, path.resolve(), verify(path, self._signers))
        except (ValueError, OSError, ManifestError) as error:
            raise AdapterUnusable(f"{path} cannot be read: {error}") from error
