"""A signed directory is refused where it was changed, renamed, or signed by somebody unknown."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock.manifest import MANIFEST, ManifestError, verify, write_manifest
from penstock.signing import KeyFileError, PublicKeys, SigningKey


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    return SigningKey.load_or_make(tmp_path / "keys" / "registry.pem")


@pytest.fixture
def known(tmp_path: Path, key: SigningKey) -> PublicKeys:
    return PublicKeys.load([tmp_path / "keys" / "registry.pem.pub"])


@pytest.fixture
def weights(tmp_path: Path, key: SigningKey) -> Path:
    directory = tmp_path / "triage-v1"
    directory.mkdir()
    (directory / "a.bin").write_bytes(b"one")
    write_manifest(directory, key)
    return directory


def test_what_was_signed_verifies(weights: Path, known: PublicKeys) -> None:
    assert verify(weights, known) == verify(weights)


def rename(weights: Path) -> Path:
    return weights.rename(weights.with_name("triage-v2"))


def change_and_list(weights: Path) -> Path:
    (weights / "a.bin").write_bytes(b"two")
    signature = json.loads((weights / MANIFEST).read_text())["signature"]
    write_manifest(weights)
    manifest = json.loads((weights / MANIFEST).read_text())
    (weights / MANIFEST).write_text(json.dumps(manifest | {"signature": signature}))
    return weights


def unsign(weights: Path) -> Path:
    write_manifest(weights)
    return weights


def unlist(weights: Path) -> Path:
    (weights / MANIFEST).unlink()
    return weights


def sign_by_another(weights: Path) -> Path:
    write_manifest(weights, SigningKey.load_or_make(weights.with_name("other.pem")))
    return weights


def garble(weights: Path) -> Path:
    text = (weights / MANIFEST).read_text()
    value = json.loads(text)["signature"]["value"]
    (weights / MANIFEST).write_text(text.replace(value, "zz" + value[2:]))
    return weights


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (rename, "not of these files under this name"),
        (change_and_list, "not of these files under this name"),
        (garble, "not of these files under this name"),
        (unsign, "is not signed"),
        (unlist, "must be signed"),
        (sign_by_another, "nobody who is known here"),
    ],
)
def test_what_was_not_signed_so_is_refused(
    weights: Path, known: PublicKeys, harm: Callable[[Path], Path], said: str
) -> None:
    harmed = harm(weights)
    verify(harmed)  # without signatures each of them passes
    with pytest.raises(ManifestError, match=said):
        verify(harmed, known)


def test_a_key_is_made_once_and_is_its_owners_alone(tmp_path: Path, key: SigningKey) -> None:
    path = tmp_path / "keys" / "registry.pem"
    assert SigningKey.load_or_make(path).id == key.id
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(p.name for p in path.parent.iterdir()) == ["registry.pem", "registry.pem.pub"]


def test_what_is_no_key_is_named(tmp_path: Path) -> None:
    (tmp_path / "no.pem").write_text("no key")
    with pytest.raises(KeyFileError, match=r"no\.pem"):
        SigningKey.load_or_make(tmp_path / "no.pem")
    with pytest.raises(KeyFileError, match=r"no\.pem"):
        PublicKeys.load([tmp_path / "no.pem"])
