"""A larger model that says what is right where nobody did."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import httpx

from penstock.telemetry import logger
from penstock_retrain.dataset import policy as policies
from penstock_retrain.dataset.errors import TeacherError
from penstock_retrain.dataset.examples import Example
from penstock_retrain.dataset.gathering import TEACHER_LABEL
from penstock_retrain.dataset.rows import CUT_OFF

__all__ = ["AnswerLog", "OpenAITeacher", "Teacher", "teach"]

log = logger(__name__)

ATTEMPTS = 5
WAIT_S = (0.5, 30.0)  # first and longest wait before the same question is asked again
# Of these another question will not do better.
OURS = frozenset({401, 403, 404})


class Teacher(Protocol):
    """Answers questions. Several may be asked at a time."""

    @property
    def name(self) -> str:
        """What its answers depend on beside the question: they are kept under it."""
        ...

    async def answer(self, example: Example) -> str:
        """What it says; empty where it refuses this question.

        Raises:
            TeacherError: It cannot be asked.
        """
        ...


class OpenAITeacher:
    """Any OpenAI-compatible door, penstock's own included.

    Asked greedily and with a fixed seed. Requests carry the label `penstock-teacher`, so that a
    penstock that answers them does not take them for a client's.

    Args:
        policy: Where it is and how it is asked.
        transport: How it is reached, for tests.
    """

    def __init__(
        self, policy: policies.Teacher, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self._policy = policy
        key = os.environ.get(policy.api_key_env, "") if policy.api_key_env else ""
        if policy.api_key_env and not key:
            raise TeacherError(f"set {policy.api_key_env} to the teacher's key")
        self._client = httpx.AsyncClient(
            base_url=policy.url.rstrip("/"),
            headers={"authorization": f"Bearer {key}"} if key else {},
            timeout=policy.timeout_s,
            transport=transport,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._client.aclose()

    @property
    def name(self) -> str:
        """See `Teacher`."""
        return f"{self._policy.url} {self._policy.model} {self._policy.max_tokens}"

    async def answer(self, example: Example) -> str:
        """See `Teacher`."""
        body: dict[str, Any] = {
            "model": self._policy.model,
            "temperature": 0,
            "seed": 0,
            "max_tokens": self._policy.max_tokens,
            "metadata": {TEACHER_LABEL: "1"},
        }
        if example.prompt:
            path = "/completions"
            body["prompt"] = example.prompt
        else:
            path = "/chat/completions"
            body["messages"] = [dataclasses.asdict(m) for m in example.messages]
        response = await self._asked(path, body)
        if response.status_code in OURS:
            raise TeacherError(
                f"the teacher at {self._policy.url} says {response.status_code}: look at its url, "
                "model and key in the policy"
            )
        if response.is_error:
            log.warning("the teacher refuses a question", status=response.status_code)
            return ""
        return _text(response)

    async def _asked(self, path: str, body: Mapping[str, Any]) -> httpx.Response:
        wait_s, why = WAIT_S[0], ""
        for attempt in range(ATTEMPTS):
            if attempt:
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, WAIT_S[1])
            try:
                response = await self._client.post(path, json=body)
            except httpx.TransportError as error:
                why = type(error).__name__
                continue
            if response.status_code != 429 and response.status_code < 500:
                return response
            why = str(response.status_code)
        raise TeacherError(
            f"the teacher at {self._policy.url} gave no answer {ATTEMPTS} times, at last: {why}"
        )


class AnswerLog:
    """Answers that were paid for, kept until the dataset is done: a run again asks for the rest.

    Args:
        path: A file of JSON lines; None keeps nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._answers: dict[str, str] = {}
        if path is not None and path.exists():
            # By line ends alone: an answer's text may have other separators.
            for line in path.read_bytes().split(b"\n"):
                try:
                    found = json.loads(line)
                    self._answers[found["question"]] = found["answer"]
                except (ValueError, KeyError, TypeError):
                    continue  # half a line, of a writer that was killed, maybe in a character

    def get(self, teacher: Teacher, example: Example) -> str | None:
        """What was answered; None where it was not asked."""
        return self._answers.get(_question(teacher, example))

    def keep(self, teacher: Teacher, example: Example, answer: str) -> None:
        """Keeps an answer. Blocks briefly."""
        question = _question(teacher, example)
        self._answers[question] = answer
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            line = json.dumps({"question": question, "answer": answer}, ensure_ascii=False)
            # Begins on a line of its own, also after half a line.
            with self._path.open("a", encoding="utf-8") as file:
                file.write(f"\n{line}\n")


async def teach(
    examples: Sequence[Example],
    teacher: Teacher,
    answers: AnswerLog,
    *,
    concurrency: int,
    report: Callable[[int, int], None] = lambda done, of: None,
) -> list[Example]:
    """The examples, those without a target with the teacher's; empty where it refused.

    Raises:
        TeacherError: It cannot be asked; what was answered until then is kept.
    """
    turns = asyncio.Semaphore(concurrency)
    asked = [example for example in examples if not example.target]
    done = 0

    async def one(example: Example) -> str:
        nonlocal done
        answer = answers.get(teacher, example)
        if answer is None:
            async with turns:
                answer = await teacher.answer(example)
            answers.keep(teacher, example, answer)
        done += 1
        report(done, len(asked))
        return answer

    try:
        async with asyncio.TaskGroup() as group:
            tasks = {example.id: group.create_task(one(example)) for example in asked}
    except ExceptionGroup as errors:
        failures = errors.subgroup(TeacherError)
        if failures is None:
            raise
        raise failures.exceptions[0] from None
    found = {request_id: task.result() for request_id, task in tasks.items()}
    return [
        example if example.target else dataclasses.replace(example, target=found[example.id])
        for example in examples
    ]


def _question(teacher: Teacher, example: Example) -> str:
    turns = [[m.role, m.content] for m in example.messages]
    asked = json.dumps([teacher.name, example.prompt, turns], ensure_ascii=False)
    return hashlib.sha256(asked.encode()).hexdigest()


def _text(response: httpx.Response) -> str:
    """The first choice's text; empty where it is cut off, or cannot be written down."""
    try:
        choice = response.json()["choices"][0]
        if choice.get("finish_reason") == CUT_OFF:
            return ""
        text = choice["text"] if "text" in choice else choice["message"]["content"]
        text.encode()  # JSON may have half a character, which no file can
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return ""
    return str(text)
