"""Apache Kafka's jars: fetched once in pure Python, used only if their digests are as recorded.

`kafka-jars.sha256` lists every jar by name. To record another version, set KAFKA_VERSION in
`compose/.env`, run `python -m penstock_native.jars`, and review the difference.
"""

import fcntl
import hashlib
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from penstock_native.errors import JarError
from penstock_native.settings import stack_defaults

_log = logging.getLogger(__name__)

MANIFEST = Path(__file__).parents[2] / "kafka-jars.sha256"
_ATTEMPTS = 3
_RECORD = "python -m penstock_native.jars"


def cache_dir() -> Path:
    """Where verified jars are kept between runs (XDG_CACHE_HOME is honoured)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "penstock"


def classpath(version: str, cache: Path | None = None, manifest: Path = MANIFEST) -> list[Path]:
    """Return the jars of one Kafka version, fetching what is missing. Blocks; safe to run twice.

    Raises:
        JarError: The network failed, or a jar differs from its record: nothing is run then.
    """
    expected = read_manifest(manifest, version)
    home = (cache or cache_dir()) / f"kafka-{version}"
    home.parent.mkdir(parents=True, exist_ok=True)
    with _locked(home.with_suffix(".lock")):
        if not home.is_dir():
            _log.info("fetching Apache Kafka %s (%d jars, once)", version, len(expected))
            fetched = _resolve(version)
            _check(fetched, expected)
            _keep(fetched, home)
    jars = sorted(home.glob("*.jar"))
    _check(jars, expected)
    return jars


def read_manifest(manifest: Path, version: str) -> dict[str, str]:
    """Read the recorded digests, by jar name.

    Raises:
        JarError: The record is missing, or is of another version of Kafka.
    """
    try:
        lines = manifest.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise JarError(f"{manifest.name} can't be read ({error}); write it: {_RECORD}") from error
    expected = {}
    for line in lines:
        if line and not line.startswith("#"):
            digest, name = line.split()
            expected[name] = digest
    if f"kafka-clients-{version}.jar" not in expected:
        raise JarError(
            f"{manifest.name} does not record Kafka {version}: "
            f"set KAFKA_VERSION in compose/.env to what it records, or record anew: {_RECORD}"
        )
    return expected


def _check(jars: list[Path], expected: dict[str, str]) -> None:
    found = {jar.name: hashlib.sha256(jar.read_bytes()).hexdigest() for jar in jars}
    wrong = sorted(name for name in found.keys() & expected if found[name] != expected[name])
    missing = sorted(expected.keys() - found)
    extra = sorted(found.keys() - expected)
    problems = [
        f"{label}: {', '.join(names)}"
        for label, names in (("altered", wrong), ("missing", missing), ("not recorded", extra))
        if names
    ]
    if problems:
        raise JarError(
            f"Kafka's jars are not the recorded ones ({'; '.join(problems)}): they are not run. "
            f"Remove {jars[0].parent if jars else 'the cache'} to fetch them again; if the "
            f"difference is meant, record it: {_RECORD}"
        )


def _resolve(version: str) -> list[Path]:
    import jgo  # here, since only a first run needs it and it takes a while to import

    # kafka-clients is named because it would resolve to 3.9.1 otherwise, and the broker would die;
    # the log4j binding because Kafka leaves the choice of one to its distribution.
    endpoint = "+".join(
        (
            f"org.apache.kafka:kafka_2.13:{version}",
            f"org.apache.kafka:kafka-clients:{version}",
            "org.apache.logging.log4j:log4j-slf4j-impl:2.25.2",
        )
    )
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return [Path(jar) for jar in jgo.build(endpoint).all_jars]
        except (OSError, RuntimeError) as error:
            if attempt == _ATTEMPTS:
                raise JarError(
                    f"Apache Kafka {version} could not be fetched ({error}). "
                    "Check the network and run the same command again."
                ) from error
            # What has been fetched is kept: the next attempt goes on from there.
            _log.warning("fetching Apache Kafka failed (%s), trying again", error)
            time.sleep(attempt * 2.0)
    raise AssertionError("the last attempt returns or raises")


def _keep(jars: list[Path], home: Path) -> None:
    # Renamed as a whole, so that an interrupted copy is never taken for a complete one.
    with tempfile.TemporaryDirectory(dir=home.parent) as scratch:
        staged = Path(scratch) / home.name
        staged.mkdir()
        for jar in jars:
            shutil.copyfile(jar, staged / jar.name)
        staged.rename(home)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def record(version: str, manifest: Path = MANIFEST) -> None:
    """Resolve the jars of a version and write their digests. Needs the network; blocks."""
    lines = [f"# Apache Kafka {version}: sha256 and name of every jar, written by {_RECORD}"]
    lines += [
        f"{hashlib.sha256(jar.read_bytes()).hexdigest()}  {jar.name}"
        for jar in sorted(_resolve(version), key=lambda path: path.name)
    ]
    manifest.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    record(stack_defaults()["KAFKA_VERSION"])
