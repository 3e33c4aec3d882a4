"""Manifests refuse a directory that is not what was written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from penstock.manifest import MANIFEST, ManifestError, verify, write_manifest


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    directory = tmp_path / "weights"
    (directory / "deep").mkdir(parents=True)
    (directory / "a.bin").write_bytes(b"one")
    (directory / "deep" / "b.bin").write_bytes(b"two")
    return directory


def test_what_was_written_verifies_with_the_same_digest(weights: Path) -> None:
    before = verify(weights)
    assert write_manifest(weights) == before == verify(weights)


def change(weights: Path) -> None:
    (weights / "a.bin").write_bytes(b"One")


def cut(weights: Path) -> None:
    (weights / "deep" / "b.bin").unlink()


def add(weights: Path) -> None:
    (weights / "c.bin").write_bytes(b"three")


def garble(weights: Path) -> None:
    (weights / MANIFEST).write_text("{")


def lead_out(weights: Path) -> None:
    (weights / "a.bin").unlink()
    (weights / "a.bin").symlink_to("/etc/hostname")


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (change, r"a\.bin differs"),
        (cut, r"b\.bin is not there"),
        (add, r"c\.bin is not listed"),
        (garble, "is no manifest"),
        (lead_out, r"a\.bin leads out"),
    ],
)
def test_other_files_are_refused_by_name(
    weights: Path, harm: Callable[[Path], None], said: str
) -> None:
    write_manifest(weights)
    harm(weights)
    with pytest.raises(ManifestError, match=said):
        verify(weights)


def test_without_a_manifest_the_digest_still_tells_versions_apart(weights: Path) -> None:
    before = verify(weights)
    change(weights)
    assert verify(weights) != before
