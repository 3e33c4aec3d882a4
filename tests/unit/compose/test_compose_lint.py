"""The compose files hold to their rules, and the lint sees it when they don't."""

import importlib.util
import shutil
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def lint() -> ModuleType:
    spec = importlib.util.spec_from_file_location("compose_lint", ROOT / "compose" / "lint.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_committed_files_have_no_findings(lint: ModuleType) -> None:
    assert lint.lint() == []


@pytest.mark.parametrize(
    ("before", "after", "finding"),
    [
        ('"127.0.0.1:9092:9092"', '"9092:9092"', "published beyond loopback"),
        ("image: ${KAFKA_IMAGE}", "image: apache/kafka:latest", "is not pinned"),
        ("${PENSTOCK_LOG_LEVEL}", "${PENSTOCK_LOG_LEVLE}", "${PENSTOCK_LOG_LEVLE} is not in .env"),
        ("services/drift/Dockerfile", "services/drfit/Dockerfile", "is not there"),
        ("name: penstock\n", "name: [penstock\n", "compose.yaml:"),
        ("      PENSTOCK_DRIFT_HOST: 0.0.0.0\n", "", "PENSTOCK_DRIFT_HOST: 0.0.0.0"),
        ("COST_HOST: 0.0.0.0", "COST_HOST: 127.0.0.1", "cost: listens where neither"),
        (
            "      kafka:\n        condition",
            "      kafak:\n        condition",
            "which is no service",
        ),
    ],
)
def test_broken_rule_is_found(
    lint: ModuleType, tmp_path: Path, before: str, after: str, finding: str
) -> None:
    shutil.copytree(ROOT / "compose", tmp_path / "compose", ignore=shutil.ignore_patterns("native"))
    for dockerfile in ROOT.glob("services/*/Dockerfile"):
        target = tmp_path / dockerfile.relative_to(ROOT)
        target.parent.mkdir(parents=True)
        shutil.copy(dockerfile, target)
    path = tmp_path / "compose" / "compose.yaml"
    text = path.read_text(encoding="utf-8")
    assert before in text
    path.write_text(text.replace(before, after), encoding="utf-8")
    findings = lint.lint(tmp_path / "compose", ROOT)
    assert any(finding in line for line in findings), findings


def test_dockerfile_that_runs_as_root_is_found(lint: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "Dockerfile"
    path.write_text("FROM python:latest\nCOPY absent /x\n", encoding="utf-8")
    assert list(lint.lint_dockerfile(path, ROOT)) == [
        "runs as root: add USER",
        "has no HEALTHCHECK",
        "installs packages without --require-hashes",
        "base image python:latest is not pinned",
        "copies absent, which is not there",
    ]
