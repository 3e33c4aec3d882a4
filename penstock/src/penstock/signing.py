"""Signatures of manifests: Ed25519 (RFC 8032), so that who verifies cannot sign.

Needs cryptography, which the extra `signing` of the kit brings.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)

from penstock.manifest import ManifestError

__all__ = ["KeyFileError", "PublicKeys", "SigningKey"]

ALGORITHM = "ed25519"
_DOMAIN = b"penstock manifest 1\0"


class KeyFileError(Exception):
    """A key cannot be read or made; the message names the file."""


def _message(name: str, digest: str) -> bytes:
    # The name is signed too: one adapter's files under another's name would verify otherwise.
    return _DOMAIN + name.encode() + b"\0" + digest.encode()


def _id_of(key: Ed25519PublicKey) -> str:
    raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return hashlib.sha256(raw).hexdigest()[:16]


class SigningKey:
    """A private key that signs manifests; see `penstock.manifest.Signer`."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.id = _id_of(key.public_key())

    @classmethod
    def load_or_make(cls, path: Path) -> SigningKey:
        """The key of a file; one is made, with its public half beside it, where there is none.

        Blocks. The private key is readable by its owner alone; `<path>.pub` is for who verifies.

        Raises:
            KeyFileError: The file holds no such key, or cannot be read or written.
        """
        try:
            if not path.exists():
                _make(path)
            found = serialization.load_pem_private_key(path.read_bytes(), password=None)
        except (OSError, ValueError, TypeError) as error:
            raise KeyFileError(f"{path} is no private key that can be read: {error}") from error
        if not isinstance(found, Ed25519PrivateKey):
            raise KeyFileError(f"{path} is no Ed25519 key: make one, or name a path without a file")
        return cls(found)

    def sign(self, name: str, digest: str) -> Mapping[str, str]:
        """See `penstock.manifest.Signer`."""
        value = self._key.sign(_message(name, digest)).hex()
        return {"algorithm": ALGORITHM, "key": self.id, "value": value}


class PublicKeys:
    """The public keys whose signatures count; see `penstock.manifest.Signatures`."""

    def __init__(self, keys: Iterable[Ed25519PublicKey]) -> None:
        self._keys = {_id_of(key): key for key in keys}

    @classmethod
    def load(cls, paths: Iterable[Path]) -> PublicKeys:
        """The keys of some files. Blocks.

        Raises:
            KeyFileError: A file holds no Ed25519 public key.
        """
        keys = []
        for path in paths:
            try:
                found = serialization.load_pem_public_key(path.read_bytes())
            except (OSError, ValueError) as error:
                raise KeyFileError(f"{path} is no public key that can be read: {error}") from error
            if not isinstance(found, Ed25519PublicKey):
                raise KeyFileError(f"{path} is no Ed25519 public key")
            keys.append(found)
        return cls(keys)

    def check(self, name: str, digest: str, signature: Mapping[str, str]) -> None:
        """See `penstock.manifest.Signatures`."""
        key = self._keys.get(signature.get("key", ""))
        if key is None or signature.get("algorithm") != ALGORITHM:
            raise ManifestError(
                f"{name} is signed by nobody who is known here (key {signature.get('key', '-')}): "
                "add the signer's public key, or register the version anew"
            )
        try:
            key.verify(bytes.fromhex(signature.get("value", "")), _message(name, digest))
        except (InvalidSignature, ValueError):
            raise ManifestError(
                f"the signature of {name} is not of these files under this name: refused"
            ) from None


def _make(path: Path) -> None:
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)
    try:
        # Linked, not renamed: of two that make one at a time the first stands for both.
        os.link(new, path)
    except FileExistsError:
        return
    finally:
        new.unlink()
    path.with_name(f"{path.name}.pub").write_bytes(public)
