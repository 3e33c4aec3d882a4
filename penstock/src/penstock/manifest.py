"""Manifests: what a directory of weights holds, by the SHA-256 of each file.

Whoever makes a directory writes `manifest.json` last; whoever loads it verifies first, so that
weights that were changed, cut short or added to are refused before they are served.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

__all__ = ["MANIFEST", "ManifestError", "digest_of", "file_digests", "verify", "write_manifest"]

MANIFEST = "manifest.json"


class ManifestError(Exception):
    """A directory is not what its manifest says; the message names the file."""


def file_digests(directory: Path) -> dict[str, str]:
    """The SHA-256 of every file below a directory, by relative path, without the manifest.

    Reads every byte: blocks for about a second per gigabyte.

    Raises:
        ManifestError: A link leads out of the directory.
    """
    root = directory.resolve()
    digests = {}
    for path in sorted(directory.rglob("*")):
        if not path.resolve().is_relative_to(root):
            raise ManifestError(f"{path.relative_to(directory)} leads out of {directory}")
        if path.is_file() and path != directory / MANIFEST:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            digests[path.relative_to(directory).as_posix()] = found
    return digests


def digest_of(digests: Mapping[str, str]) -> str:
    """One SHA-256 that stands for all files with their names."""
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()


def write_manifest(directory: Path) -> str:
    """Writes the manifest of what is there now; returns the digest of the whole."""
    digests = file_digests(directory)
    (directory / MANIFEST).write_text(json.dumps({"files": digests}, indent=1, sort_keys=True))
    return digest_of(digests)


def verify(directory: Path) -> str:
    """Compares a directory with its manifest, where it has one; returns the digest of the whole.

    Raises:
        ManifestError: A file differs, is missing or is not listed, or the manifest is none.
    """
    digests = file_digests(directory)
    manifest = directory / MANIFEST
    if manifest.exists() and (listed := _listed(manifest)) != digests:
        names = sorted(listed.keys() | digests.keys())
        wrong = next(name for name in names if listed.get(name) != digests.get(name))
        what = "differs" if wrong in listed and wrong in digests else "is not there"
        if wrong not in listed:
            what = "is not listed"
        raise ManifestError(f"{directory / wrong} {what}, says {MANIFEST}: write the files anew")
    return digest_of(digests)


def _listed(manifest: Path) -> dict[str, str]:
    try:
        files = json.loads(manifest.read_text(encoding="utf-8"))["files"]
        return {str(name): str(digest) for name, digest in files.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ManifestError(f"{manifest} is no manifest: {error!r}") from error
