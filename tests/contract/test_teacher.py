"""A teacher behind penstock's own HTTP door: its answers come, and are nobody's training data."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from typing import Any

import pytest

from penstock_ingest.doors.http import make_http
from penstock_ingest.doors.web import WebServer
from penstock_retrain.dataset import policy as policies
from penstock_retrain.dataset.errors import TeacherError
from penstock_retrain.dataset.examples import Example, Pool
from penstock_retrain.dataset.gathering import TEACHER_LABEL
from penstock_retrain.dataset.rows import Message
from penstock_retrain.dataset.teacher import AnswerLog, OpenAITeacher, teach

QUESTION = Example(
    id="r",
    group="g",
    messages=(Message("system", "Be kind."), Message("user", "hello")),
    prompt="",
    target="",
    rejected=None,
    label_source="teacher",
    labels={},
    time_ms=0,
    pool=Pool.RECENT,
)


@pytest.fixture
async def url(platform: Any) -> AsyncIterator[str]:
    web = make_http(platform.desk, max_request_bytes=50_000, health=platform.health)
    server = WebServer(web, host="127.0.0.1", port=0)
    yield f"http://127.0.0.1:{await server.start()}/v1"
    await server.stop(1)


async def test_its_answers_come_and_its_requests_are_marked(url: str, platform: Any) -> None:
    prompt = dataclasses.replace(QUESTION, id="p", messages=(), prompt="hello")
    labelled = dataclasses.replace(QUESTION, id="l", target="known")
    policy = policies.Teacher(url=url, model="triage")
    async with OpenAITeacher(policy) as teacher:
        taught = await teach([QUESTION, prompt, labelled], teacher, AnswerLog(None), concurrency=2)
    answers = {example.id: example.target for example in taught}
    assert answers["r"].startswith("You said: hello")
    assert answers["p"].startswith("You said: hello")
    assert answers["l"] == "known"
    assert [dict(a.request.labels) for a in platform.admitted] == [{TEACHER_LABEL: "1"}] * 2


async def test_a_model_that_is_not_served_is_told(url: str) -> None:
    async with OpenAITeacher(policies.Teacher(url=url, model="none")) as teacher:
        with pytest.raises(TeacherError, match="404"):
            await teach([QUESTION], teacher, AnswerLog(None), concurrency=1)
