"""The report of a run: what happened, what was found, how long recovery took."""

from __future__ import annotations

import importlib.metadata
import math
import platform
import subprocess
import sys
from collections import Counter
from pathlib import Path

from tests.chaos import checker, history, recovery
from tests.chaos.recovery import Answer, Recovery, Span

TARGETS_S = {"pump kill": 15.0, "pump stop": 15.0, "engine kill": 5.0}
PACKAGES = ("aiokafka", "ray", "confluent-kafka", "grpcio")


def judge(home: Path, *, seed: int, rate: float, out: Path | None = None) -> int:
    """Checks a run, prints and writes its report; 1 where a violation was found, else 0."""
    found = checker.read(home)
    verdict = checker.judge(found)
    spans = spans_of(home)
    answers = answers_of(home)
    partitions = len({response.at.partition for response in found.responses})
    recovered = recovery.recoveries(answers, spans, partitions)
    text = _markdown(home, verdict, spans, recovered, seed=seed, rate=rate)
    (home / "report.md").write_text(text, encoding="utf-8")
    if out is not None:
        out.write_text(text, encoding="utf-8")
    sys.stdout.write(text)
    sys.stdout.write("\n".join(checker.shown(verdict)) + "\n")
    return 0 if verdict.clean else 1


def spans_of(home: Path) -> list[Span]:
    """The faults as they happened; the last one's horizon is far away."""
    lines = sorted(history.lines(home / "faults.jsonl"), key=lambda line: line["begin"])
    begins = [line["begin"] for line in lines[1:]] + [math.inf]
    overlapped = [line["overlaps"] for line in lines[1:]] + [False]
    return [
        Span(
            kind=line["kind"],
            begin=line["begin"],
            end=line["end"],
            horizon=next_begin,
            overlapping=line["overlaps"] or next_overlaps,
        )
        for line, next_begin, next_overlaps in zip(lines, begins, overlapped, strict=True)
    ]


def answers_of(home: Path) -> list[Answer]:
    """Every request that was seen answered."""
    sent: dict[str, float] = {}
    for line in history.lines(home / "sent.jsonl"):
        if line["event"] == "sent":
            sent.setdefault(line["id"], line["at"])
    answers: dict[str, Answer] = {}
    for line in history.lines(home / "seen.jsonl"):
        if line["topic"] == "responses" and "json" in line:
            response = history.response(line)
            if response.id in sent and response.id not in answers:
                answers[response.id] = Answer(sent[response.id], line["at"], line["partition"])
    return list(answers.values())


def _markdown(
    home: Path,
    verdict: checker.Verdict,
    spans: list[Span],
    recovered: list[Recovery],
    *,
    seed: int,
    rate: float,
) -> str:
    sent = [line["at"] for line in history.lines(home / "sent.jsonl") if line["event"] == "sent"]
    minutes = (max(sent) - min(sent)) / 60 if sent else 0.0
    lines = [
        "# Chaos",
        "",
        "Written by `python -m tests.chaos.run`; what the columns mean: docs/chaos.md.",
        "",
        f"- {_machine()}",
        f"- {_versions()}",
        f"- seed {seed}; {rate:g} requests/s for {minutes:.0f} minutes; 3 Kafka nodes "
        "(replication 3, min.insync.replicas 2), scripted engine, 4 partitions",
        "",
        "| | |",
        "|---|---:|",
        f"| requests | {verdict.requests} |",
        f"| terminal responses | {sum(verdict.outcomes.values())} |",
        f"| faults | {len(spans)} |",
        *(f"| **{kind}** | **{len(names)}** |" for kind, names in verdict.violations.items()),
        f"| ended otherwise than answered | {len(verdict.unmet)} |",
        f"| records on dlq | {verdict.dead} |",
        "",
        "Seconds from a fault to the first answer on every partition to a request sent after it, "
        "and the longest wait of a request until the next fault.",
        "",
        "| fault | times | recovery p50 | p99 | never | target p99 | longest wait p50 | max |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
        *(_row(kind, each) for kind, each in recovery.by_kind(recovered).items()),
        "",
        f"Injected: {_counted(spans)}.",
        "",
    ]
    return "\n".join(lines)


def _row(kind: str, found: list[Recovery]) -> str:
    seconds = [each.seconds for each in found if each.seconds is not None]
    waits = [each.longest_wait_s for each in found]
    p50, p99 = (
        (f"{recovery.percentile(seconds, share):.1f}" for share in (0.5, 0.99))
        if seconds
        else ("-", "-")
    )
    target = f"{TARGETS_S[kind]:g}" if kind in TARGETS_S else ""
    return (
        f"| {kind} | {len(found)} | {p50} | {p99} | {len(found) - len(seconds)} | {target} "
        f"| {recovery.percentile(waits, 0.5):.1f} | {max(waits):.1f} |"
    )


def _counted(spans: list[Span]) -> str:
    return ", ".join(f"{kind} {n}" for kind, n in sorted(Counter(s.kind for s in spans).items()))


def _machine() -> str:
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    cores = len(list(Path("/sys/devices/system/cpu").glob("cpu[0-9]*")))
    kib = int(Path("/proc/meminfo").read_text(encoding="utf-8").split()[1])
    return f"{model}, {cores} cores, {kib / 2**20:.0f} GiB, Linux {platform.release()}"


def _versions() -> str:
    root = Path(__file__).parents[2]
    kafka = next(
        line.partition("=")[2]
        for line in (root / "compose" / ".env").read_text(encoding="utf-8").splitlines()
        if line.startswith("KAFKA_VERSION=")
    )
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    packages = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    python = platform.python_version()
    snapshot = root / ".snapshot"
    if not commit and snapshot.exists():
        commit = snapshot.read_text(encoding="utf-8").strip()
    return f"penstock {commit or 'without git'}, Kafka {kafka}, {packages}, Python {python}"
