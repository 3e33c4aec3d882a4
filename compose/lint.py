"""Checks of the compose files and Dockerfiles that need no container engine.

Usage: python compose/lint.py. Prints one line per finding; exits with 1 if there are any.
"""

import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from dotenv import dotenv_values

ROOT = Path(__file__).resolve().parents[1]
COMPOSE = ROOT / "compose"

_VARIABLE = re.compile(r"(?<!\$)\$\{(\w+)(?::?[-?+][^}]*)?\}")
_PINNED = re.compile(r":v?\d+\.\d+[\w.-]*(@sha256:[0-9a-f]{64})?$")
# Images that run once and end have no health to check.
_ONE_SHOT = ("no", False)


def lint(compose_dir: Path = COMPOSE, root: Path = ROOT) -> list[str]:
    """Return every finding in the compose files of a directory and the Dockerfiles they build."""
    settings = {k: v or "" for k, v in dotenv_values(compose_dir / ".env").items()}
    findings = []
    for path in sorted(compose_dir.glob("compose*.yaml")):
        text = path.read_text(encoding="utf-8")
        try:
            document = yaml.safe_load(text)
        except yaml.YAMLError as error:
            findings.append(f"{path.name}: {error}")
            continue
        found = [
            *_undefined(text, settings),
            *_services(document.get("services", {}), settings, compose_dir),
        ]
        findings += [f"{path.name}: {finding}" for finding in found]
    for dockerfile in sorted((root / "services").glob("*/Dockerfile")):
        name = dockerfile.relative_to(root)
        findings += [f"{name}: {finding}" for finding in lint_dockerfile(dockerfile, root)]
    return findings


def lint_dockerfile(path: Path, root: Path = ROOT) -> Iterator[str]:
    """Yield what a Dockerfile lacks: a pinned base, a user, a health check, sources that exist."""
    lines = path.read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    steps = [line.split(None, 1) for line in lines if line.strip() and not line.startswith("#")]
    words = [(step[0].upper(), step[1] if len(step) > 1 else "") for step in steps]
    if not any(word == "USER" and rest not in {"root", "0"} for word, rest in words):
        yield "runs as root: add USER"
    if not any(word == "HEALTHCHECK" for word, _ in words):
        yield "has no HEALTHCHECK"
    if not any("--require-hashes" in rest for word, rest in words if word == "RUN"):
        yield "installs packages without --require-hashes"
    arguments = dict(rest.split("=", 1) for word, rest in words if word == "ARG" and "=" in rest)
    for word, rest in words:
        if word == "FROM":
            image = _expand(rest.split()[0], arguments)
            if not _PINNED.search(image):
                yield f"base image {image} is not pinned"
        if word == "COPY" and "--from=" not in rest:
            yield from (
                f"copies {source}, which is not there"
                for source in shlex.split(rest)[:-1]
                if not (root / source).exists()
            )


def _undefined(text: str, settings: Mapping[str, str]) -> Iterator[str]:
    for name in sorted(set(_VARIABLE.findall(text)) - settings.keys()):
        yield f"${{{name}}} is not in .env"


def _services(
    services: Mapping[str, Mapping[str, Any]], settings: Mapping[str, str], compose_dir: Path
) -> Iterator[str]:
    for name, service in services.items():
        for finding in _service(service, services, settings, compose_dir):
            yield f"{name}: {finding}"
        for finding in _host(name, service.get("environment", {})):
            yield f"{name}: {finding}"


def _service(
    service: Mapping[str, Any],
    services: Mapping[str, Mapping[str, Any]],
    settings: Mapping[str, str],
    compose_dir: Path,
) -> Iterator[str]:
    if "build" in service:
        build = service["build"]
        dockerfile = (compose_dir / build["context"] / build["dockerfile"]).resolve()
        if not dockerfile.is_file():
            yield f"{build['dockerfile']} is not there"
    else:
        image = _expand(service.get("image", ""), settings)
        if not _PINNED.search(image):
            yield f"image {image!r} is not pinned to a version"
        if service.get("restart") not in _ONE_SHOT and "healthcheck" not in service:
            yield "has no healthcheck"
    for port in service.get("ports", ()):
        if not str(port).startswith("127.0.0.1:"):
            yield f"port {port} is published beyond loopback"
    if "restart" not in service:
        yield "has no restart policy"
    if "ALL" not in service.get("cap_drop", ()):
        yield "keeps the default capabilities: cap_drop: [ALL]"
    yield from _dependencies(service.get("depends_on", {}), services)


def _host(name: str, environment: Mapping[str, Any]) -> Iterator[str]:
    """A service that listens on its container's loopback, its default, is reached by nobody."""
    own = f"PENSTOCK_{name.upper()}_"
    listens = any(each.startswith(own) and each.endswith("_PORT") for each in environment)
    if listens and environment.get(f"{own}HOST") != "0.0.0.0":  # noqa: S104 - inside its container
        yield f"listens where neither published ports nor Prometheus reach it: {own}HOST: 0.0.0.0"


def _dependencies(names: Iterable[str], services: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"depends on {name}, which is no service" for name in names if name not in services)


def _expand(text: str, values: Mapping[str, str]) -> str:
    return _VARIABLE.sub(lambda match: values.get(match.group(1), ""), text)


def main() -> int:
    """Print the findings; 1 if there are any."""
    findings = lint()
    sys.stdout.write("".join(f"{finding}\n" for finding in findings))
    if not findings:
        sys.stdout.write("compose: no findings\n")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
