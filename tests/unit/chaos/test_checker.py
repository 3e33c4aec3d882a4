"""The history checker finds a planted fault of each kind, and nothing where there is none."""

from __future__ import annotations

import base64
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from penstock.v1 import admitted_pb2, common_pb2, response_pb2, usage_pb2
from tests.chaos import checker

Lines = list[dict[str, Any]]
KEYS = (None, "a", "b")
COUNT = 30


class Run:
    """The histories of a run in which nothing went wrong; tests spoil them."""

    def __init__(self) -> None:
        self.sent: Lines = []
        self.seen: Lines = []
        self.audit: Lines = []
        self.ends: Lines = [{"topic": "responses", "partition": 0, "end": 90, "stable": 90}]
        self.ledger: list[tuple[str, str, str, int, int]] = []
        for number in range(COUNT):
            self._request(number)

    def _request(self, number: int) -> None:
        id_, key, at = f"r{number:02}", KEYS[number % 3], 100.0 + number
        body = {"prompt": "p", "idempotency_key": id_, "tenant": "t", "labels": {"chaos": id_}}
        self.sent.append({"event": "sent", "at": at, "id": id_, "key": key, "repeat": False})
        self.sent.append({"event": "stored", "at": at, "id": id_, "partition": 0, "offset": number})
        self._stands("requests", number, key, json=json.dumps(body))
        request_id = f"req-{number}"
        admitted = admitted_pb2.AdmittedRequest(request_id=request_id)
        admitted.request.idempotency_key = id_
        self._stands("admitted", number, key, binary=admitted.SerializeToString())
        response = {
            "request_id": request_id,
            "outcome": "OUTCOME_ANSWERED",
            "tenant": "t",
            "idempotency_key": id_,
            "labels": {"chaos": id_},
            "usage": {"prompt_tokens": 3, "completion_tokens": 300},
        }
        self._stands("responses", number * 2, key or request_id, json=json.dumps(response))
        self.seen.append({**self.audit[-1], "at": at + 0.5})
        usage = usage_pb2.UsageLine(
            line_id=f"l{number}",
            request_id=request_id,
            kind=usage_pb2.USAGE_KIND_GENERATION,
            tenant="t",
            usage=common_pb2.Usage(prompt_tokens=3, completion_tokens=300),
        )
        usage.observed_at.FromSeconds(1_700_000_000 + number)
        self._stands("usage", number, "t", binary=usage.SerializeToString())
        self.ledger.append((f"l{number}", request_id, "t", 3, 300))

    def _stands(
        self, topic: str, offset: int, key: str | None, *, json: str = "", binary: bytes = b""
    ) -> None:
        value = {"json": json} if json else {"base64": base64.b64encode(binary).decode()}
        line = {"at": 0.0, "topic": topic, "partition": 0, "offset": offset, "key": key, **value}
        self.audit.append(line)

    def of(self, topic: str) -> Lines:
        """The lines of a topic as they stand in the end."""
        return [line for line in self.audit if line["topic"] == topic]

    def take_away(self, line: dict[str, Any]) -> None:
        """As if it had never been written."""
        self.audit.remove(line)
        self.seen = [each for each in self.seen if each["offset"] != line["offset"]]

    def write(self, home: Path) -> Path:
        """The histories as the recorder leaves them."""
        for name in ("sent", "seen", "audit", "ends"):
            text = "".join(json.dumps(line) + "\n" for line in getattr(self, name))
            (home / f"{name}.jsonl").write_text(text, encoding="utf-8")
        with closing(sqlite3.connect(home / "ledger.sqlite")) as database:
            database.execute(
                "CREATE TABLE ledger_lines (line_id, request_id, tenant, prompt_tokens, "
                "completion_tokens)"
            )
            database.executemany("INSERT INTO ledger_lines VALUES (?, ?, ?, ?, ?)", self.ledger)
            database.commit()
        return home


def _again(line: dict[str, Any], offset: int) -> dict[str, Any]:
    return {**line, "offset": offset}


def _swap(run: Run, first: int, second: int) -> None:
    one, other = run.of("responses")[first], run.of("responses")[second]
    one["offset"], other["offset"] = other["offset"], one["offset"]
    run.seen.clear()


def _respond(run: Run, **changes: object) -> None:
    line = run.of("responses")[-1]
    body = {**json.loads(line["json"]), **changes}
    run.audit.append({**line, "offset": 500, "json": json.dumps(body)})


def _change(line: dict[str, Any], **changes: object) -> None:
    line["json"] = json.dumps({**json.loads(line["json"]), **changes})


def _bill_again(run: Run) -> None:
    run.audit.append(_again(run.of("usage")[7], 777))


def _stuck(run: Run) -> None:
    run.ends[0]["stable"] = 80


def _ledger_row(run: Run, **changes: object) -> None:
    line_id, request_id, tenant, prompt, completion = run.ledger[5]
    row = {"line_id": line_id, "tenant": tenant, "completion": completion, **changes}
    run.ledger.append(
        (str(row["line_id"]), request_id, str(row["tenant"]), prompt, int(str(row["completion"])))
    )


# Each plants one bug: what to do to a good run, and what the checker has to call it.
BUGS: list[tuple[str, Callable[[Run], object]]] = [
    ("lost", lambda run: run.take_away(run.of("responses")[0])),
    ("duplicated", lambda run: run.audit.append(_again(run.of("responses")[4], 401))),
    ("reordered within a key", lambda run: _swap(run, 4, 7)),
    ("phantom", lambda run: _respond(run, idempotency_key="nobody", request_id="req-x")),
    ("phantom", lambda run: _change(run.of("responses")[3], tenant="somebody else")),
    ("phantom", lambda run: _change(run.of("responses")[3], labels={"chaos": "r09"})),
    ("phantom", lambda run: run.of("responses")[4].update(key="b")),
    ("admitted twice", lambda run: run.audit.append(_again(run.of("admitted")[2], 222))),
    ("ledger lines missing", lambda run: run.take_away(run.of("usage")[6])),
    ("ledger lines missing", lambda run: run.ledger.pop()),
    ("ledger lines double", _bill_again),
    ("ledger lines double", lambda run: _ledger_row(run, line_id="l5 again")),
    ("vanished from Kafka", lambda run: run.sent.append({**run.sent[1], "offset": 999})),
    ("vanished from Kafka", lambda run: run.seen.append(_again(run.seen[0], 998))),
    ("partitions stuck for committed readers", _stuck),
]

# What one bug makes another: without its answer a line of usage belongs to nobody, and an answer
# in the wrong tenant's name differs from its line.
FOLLOWS = {"lost": {"phantom"}, "phantom": {"ledger lines wrong"}}


def test_nothing_is_found_where_nothing_is(tmp_path: Path) -> None:
    verdict = checker.judge(checker.read(Run().write(tmp_path)))
    assert verdict.clean
    assert verdict.requests == verdict.answered == COUNT
    assert verdict.outcomes == {"OUTCOME_ANSWERED": COUNT}


@pytest.mark.parametrize(("kind", "plant"), BUGS)
def test_a_planted_bug_is_found_and_nothing_else(
    kind: str, plant: Callable[[Run], object], tmp_path: Path
) -> None:
    run = Run()
    plant(run)
    verdict = checker.judge(checker.read(run.write(tmp_path)))
    found = {name for name, violations in verdict.violations.items() if violations}
    assert kind in found
    assert found <= {kind, *FOLLOWS.get(kind, ())}


@pytest.mark.parametrize(
    "usage", [{"completion_tokens": 299}, {"prompt_tokens": 3, "completion_tokens": 301}]
)
def test_wrong_tokens_are_found(usage: dict[str, int], tmp_path: Path) -> None:
    run = Run()
    _change(run.of("responses")[8], usage=usage)
    verdict = checker.judge(checker.read(run.write(tmp_path)))
    assert len(verdict.violations["ledger lines wrong"]) == 2, "on the topic and in the ledger"


def test_a_record_that_was_read_twice_is_no_duplicate(tmp_path: Path) -> None:
    run = Run()
    run.audit += run.of("responses")
    assert checker.judge(checker.read(run.write(tmp_path))).clean


def test_a_repeated_request_is_one(tmp_path: Path) -> None:
    run = Run()
    run.audit.append(_again(run.of("requests")[1], 400))
    verdict = checker.judge(checker.read(run.write(tmp_path)))
    assert verdict.clean
    assert verdict.requests == COUNT


def test_what_ended_otherwise_is_told(tmp_path: Path) -> None:
    run = Run()
    _change(run.of("responses")[2], outcome="OUTCOME_FAILED", usage={})
    verdict = checker.judge(checker.read(run.write(tmp_path)))
    assert verdict.unmet == ["r02: OUTCOME_FAILED"]


def test_answers_to_probes_are_nobody_s(tmp_path: Path) -> None:
    run = Run()
    probe = response_pb2.GenerateResponse(request_id="req-p", purpose=common_pb2.PURPOSE_PROBE)
    stranger = response_pb2.GenerateResponse(request_id="req-s")
    for offset, response in enumerate((probe, stranger), 600):
        value = base64.b64encode(response.SerializeToString()).decode()
        run.audit.append(
            {"topic": "responses", "partition": 0, "offset": offset, "key": "k", "base64": value}
        )
    verdict = checker.judge(checker.read(run.write(tmp_path)))
    assert [text.split(" ")[0] for text in verdict.violations["phantom"]] == ["req-s"]


def test_lines_of_probes_need_no_answer(tmp_path: Path) -> None:
    run = Run()
    line = usage_pb2.UsageLine(line_id="p", request_id="req-p", kind=usage_pb2.USAGE_KIND_PROBE)
    value = base64.b64encode(line.SerializeToString()).decode()
    run.audit.append({"topic": "usage", "partition": 0, "offset": 600, "key": "", "base64": value})
    assert checker.judge(checker.read(run.write(tmp_path))).clean
