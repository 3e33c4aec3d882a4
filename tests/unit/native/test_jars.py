"""Kafka's jars are used only when they are the recorded ones."""

import hashlib
from pathlib import Path

import pytest

from penstock_native.errors import JarError
from penstock_native.jars import classpath
from penstock_native.settings import stack_defaults

NAME = "kafka-clients-9.9.9.jar"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    home = tmp_path / "cache" / "kafka-9.9.9"
    home.mkdir(parents=True)
    (home / NAME).write_bytes(b"as recorded")
    return home.parent


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "kafka-jars.sha256"
    digest = hashlib.sha256(b"as recorded").hexdigest()
    path.write_text(f"# Kafka 9.9.9\n{digest}  {NAME}\n", encoding="utf-8")
    return path


def test_recorded_jars_are_the_classpath(cache: Path, manifest: Path) -> None:
    assert classpath("9.9.9", cache, manifest) == [cache / "kafka-9.9.9" / NAME]


def test_altered_jar_is_refused(cache: Path, manifest: Path) -> None:
    (cache / "kafka-9.9.9" / NAME).write_bytes(b"altered")
    with pytest.raises(JarError, match=f"altered: {NAME}"):
        classpath("9.9.9", cache, manifest)


def test_unrecorded_jar_is_refused(cache: Path, manifest: Path) -> None:
    (cache / "kafka-9.9.9" / "stranger.jar").write_bytes(b"")
    with pytest.raises(JarError, match=r"not recorded: stranger\.jar"):
        classpath("9.9.9", cache, manifest)


def test_missing_jar_is_refused(cache: Path, manifest: Path) -> None:
    (cache / "kafka-9.9.9" / NAME).unlink()
    with pytest.raises(JarError, match=f"missing: {NAME}"):
        classpath("9.9.9", cache, manifest)


def test_other_version_than_recorded_is_refused(cache: Path, manifest: Path) -> None:
    with pytest.raises(JarError, match=r"does not record Kafka 9\.9\.8"):
        classpath("9.9.8", cache, manifest)


def test_missing_record_is_named(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(JarError, match="can't be read"):
        classpath("9.9.9", cache, tmp_path / "absent")


def test_stack_runs_the_recorded_version() -> None:
    from penstock_native.jars import MANIFEST, read_manifest

    assert len(read_manifest(MANIFEST, stack_defaults()["KAFKA_VERSION"])) > 40
