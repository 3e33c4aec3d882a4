"""A teacher is asked for what nobody labelled, once for each question that it answered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from penstock_retrain.dataset import policy as policies
from penstock_retrain.dataset import teacher as module
from penstock_retrain.dataset.building import Selection, select_dataset
from penstock_retrain.dataset.errors import TeacherError
from penstock_retrain.dataset.examples import Example, Pool, Split
from penstock_retrain.dataset.policy import DatasetPolicy
from penstock_retrain.dataset.store import FileStore
from penstock_retrain.dataset.teacher import OpenAITeacher
from penstock_retrain.dataset.writing import read_split
from tests.unit.retrain.dataset.collected_rows import NOW_MS, keep
from tests.unit.retrain.dataset.test_select_dataset import said, text

POLICY = {
    "labels": ["label", "teacher"],
    "label_field": "category",
    "min_rows": 1,
    "near_duplicates": None,
    "split": {"validation": 0, "golden": 0},
    "teacher": {"url": "http://teacher/v1", "model": "large", "concurrency": 1, "max_rows": 3},
}


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAIT_S", (0.0, 0.0))


class Door:
    """An OpenAI-compatible door in memory."""

    def __init__(self, *statuses: int) -> None:
        self.asked: list[dict[str, Any]] = []
        self.statuses = list(statuses)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        self.asked.append({"path": request.url.path, **body})
        status = self.statuses.pop(0) if self.statuses else 200
        if status != 200:
            return httpx.Response(status)
        words = body["messages"][-1]["content"].split()
        return httpx.Response(200, json={"choices": [{"message": {"content": words[0]}}]})

    def teacher(self) -> OpenAITeacher:
        policy = policies.Teacher(url="http://teacher/v1", model="large")
        return OpenAITeacher(policy, httpx.MockTransport(self))


def example(number: int) -> Example:
    return Example(
        f"r{number}", "g", (), f"question {number}", "", None, "teacher", {}, 0, Pool.RECENT
    )


async def made(tmp_path: Path, teacher: OpenAITeacher, out: str = "d") -> Any:
    store = FileStore(str(tmp_path / "collected"))
    keep(store, [said(1), *(said(n, label=None) for n in range(2, 7))])
    selection = Selection("triage", DatasetPolicy.of(POLICY), NOW_MS)
    async with teacher:
        return await select_dataset(store, selection, tmp_path / out, teacher=teacher)


async def test_the_unlabelled_are_taught_within_the_bound(tmp_path: Path) -> None:
    door = Door()
    dataset = await made(tmp_path, door.teacher())
    rows = [e for split in Split for e in read_split(dataset.path, split)]
    taught = {e.id: e.target for e in rows if e.label_source == "teacher"}
    assert len(taught) == len(door.asked) == 3
    assert all(target == text(int(name[1:])).split()[0] for name, target in taught.items())
    assert (dict(dataset.counts)["label.label"], dict(dataset.left_out)) == (1, {"untaught": 2})
    asked = door.asked[0]
    assert (asked["path"], asked["model"], asked["temperature"]) == (
        "/v1/chat/completions",
        "large",
        0,
    )
    # A penstock that answers does not take it for a client's.
    assert asked["metadata"] == {"penstock-teacher": "1"}


async def test_a_run_again_asks_only_for_the_rest(tmp_path: Path) -> None:
    broken = Door(200, 404, 404)
    with pytest.raises(TeacherError, match="404"):
        await made(tmp_path, broken.teacher())
    answers = tmp_path / "d" / "teacher.jsonl"
    assert answers.exists()
    with answers.open("a") as file:
        file.write('{"question": "half a li')
    door = Door()
    dataset = await made(tmp_path, door.teacher())
    assert len(door.asked) == 2
    assert dict(dataset.counts)["label.teacher"] == 3
    assert not answers.exists()


def test_kept_answers_may_have_any_character_and_the_last_may_be_half(tmp_path: Path) -> None:
    path, teacher = tmp_path / "teacher.jsonl", Door().teacher()
    texts = ["one\u2028two", "three\x85four", "caf\xe9\nau lait"]
    questions = [example(n) for n in range(len(texts))]
    log = module.AnswerLog(path)
    for question, answer in zip(questions, texts, strict=True):
        log.keep(teacher, question, answer)
    path.write_bytes(path.read_bytes() + '\n{"question": "x", "answer": "caf\xe9'.encode()[:-1])
    again = module.AnswerLog(path)
    assert [again.get(teacher, question) for question in questions] == texts
    # What is kept after half a line is found, too.
    again.keep(teacher, example(9), "more")
    assert module.AnswerLog(path).get(teacher, example(9)) == "more"


async def test_busy_is_asked_again_and_a_refusal_is_left_out(tmp_path: Path) -> None:
    door = Door(429, 503, 200, 400)
    dataset = await made(tmp_path, door.teacher())
    assert len(door.asked) == 5
    assert dict(dataset.left_out) == {"untaught": 3}


@pytest.mark.parametrize(
    "choice",
    [
        '{"message": {"content": "\\ud800"}}',  # half a character
        '{"message": {"content": "half an ans"}, "finish_reason": "length"}',
        '{"message": {"content": null}}',
        "[]",
    ],
)
async def test_what_is_no_whole_answer_teaches_nothing(tmp_path: Path, choice: str) -> None:
    def door(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=f'{{"choices": [{choice}]}}'.encode())

    policy = policies.Teacher(url="http://teacher/v1", model="large")
    dataset = await made(tmp_path, OpenAITeacher(policy, httpx.MockTransport(door)))
    assert dict(dataset.left_out) == {"untaught": 5}


async def test_one_that_is_away_is_given_up_after_a_while(tmp_path: Path) -> None:
    def away(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("no")

    policy = policies.Teacher(url="http://teacher/v1", model="large")
    with pytest.raises(TeacherError, match="no answer 5 times"):
        await made(tmp_path, OpenAITeacher(policy, httpx.MockTransport(away)))


def test_a_key_that_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEACHER_KEY", raising=False)
    with pytest.raises(TeacherError, match="set TEACHER_KEY"):
        OpenAITeacher(policies.Teacher(url="http://t", model="m", api_key_env="TEACHER_KEY"))
