"""Manifests: what a directory of weights holds, by the SHA-256 of each file.

Whoever makes a directory writes `manifest.json` last; whoever loads it verifies first, so that
weights that were changed, cut short or added to are refused before they are served.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

__all__ = [
    "MANIFEST",
    "ManifestError",
    "Signatures",
    "Signer",
    "digest_of",
    "file_digests",
    "verify",
    "write_manifest",
]

MANIFEST = "manifest.json"


class ManifestError(Exception):
    """A directory is not what its manifest says; the message names the file."""


class Signer(Protocol):
    """Signs manifests; `penstock.signing` has one."""

    def sign(self, name: str, digest: str) -> Mapping[str, str]:
        """The signature of a directory's name and digest, as the manifest keeps it."""
        ...


class Signatures(Protocol):
    """Knows whose signatures count; `penstock.signing` has one."""

    def check(self, name: str, digest: str, signature: Mapping[str, str]) -> None:
        """Raises ManifestError unless the signature is of this name and digest."""
        ...


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


def write_manifest(directory: Path, signer: Signer | None = None) -> str:
    """Writes the manifest of what is there now; returns the digest of the whole.

    Args:
        directory: Whose files; its name is signed with them.
        signer: Signs it; an unsigned manifest is refused by whoever asks for signatures.
    """
    digests = file_digests(directory)
    content: dict[str, object] = {"files": digests}
    if signer is not None:
        content["signature"] = signer.sign(directory.name, digest_of(digests))
    # Renamed into place: a killed writer leaves no half of a manifest.
    new = directory.with_name(f".{directory.name}.{MANIFEST}.new")
    new.write_text(json.dumps(content, indent=1, sort_keys=True))
    new.replace(directory / MANIFEST)
    return digest_of(digests)


def verify(directory: Path, signers: Signatures | None = None) -> str:
    """Compares a directory with its manifest, where it has one; returns the digest of the whole.

    Args:
        directory: Whose files.
        signers: Whose signatures count; a directory without one of them is refused. None asks for
            no signature.

    Raises:
        ManifestError: A file differs, is missing or is not listed, the manifest is none, or it is
            not signed as it must be.
    """
    digests = file_digests(directory)
    path = directory / MANIFEST
    manifest = _read(path) if path.exists() else None
    if manifest is not None and (listed := _listed(path, manifest)) != digests:
        names = sorted(listed.keys() | digests.keys())
        wrong = next(name for name in names if listed.get(name) != digests.get(name))
        what = "differs" if wrong in listed and wrong in digests else "is not there"
        if wrong not in listed:
            what = "is not listed"
        raise ManifestError(f"{directory / wrong} {what}, says {MANIFEST}: write the files anew")
    digest = digest_of(digests)
    if signers is not None:
        if manifest is None:
            raise ManifestError(f"{directory} has no {MANIFEST}: it must be signed")
        signers.check(directory.name, digest, _signature(path, manifest))
    return digest


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ManifestError(f"{path} is no manifest: {error!r}") from error


def _listed(path: Path, manifest: Any) -> dict[str, str]:
    try:
        return {str(name): str(digest) for name, digest in manifest["files"].items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise ManifestError(f"{path} is no manifest: {error!r}") from error


def _signature(path: Path, manifest: Mapping[str, Any]) -> Mapping[str, str]:
    found = manifest.get("signature")
    if not isinstance(found, dict):
        raise ManifestError(f"{path} is not signed: register the version with a signing key")
    return {str(name): str(value) for name, value in found.items()}
