"""How contenders are asked: the port, and the process with torch behind it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from penstock.telemetry import logger
from penstock_retrain.gates.answer_log import AnswerLog
from penstock_retrain.gates.errors import AnswersError
from penstock_retrain.gates.examples import Answer, Batch, Contender

__all__ = ["Answering", "Answers", "ModelProcess", "answer_all"]

log = logger(__name__)

# A line of the process: a batch of answers.
MAX_LINE = 64 * 1024 * 1024
TAIL_LINES = 20
END_S = 10.0


class Answering(Protocol):
    """Contenders that are ready to answer."""

    async def ask(self, batch: Batch) -> Sequence[Answer]:
        """A batch's answers, greedy, in the order of its questions.

        Raises:
            AnswersError: There are none.
        """
        ...


class Answers(Protocol):
    """Where answers come from."""

    def opened(self, contenders: Sequence[Contender]) -> AbstractAsyncContextManager[Answering]:
        """The contenders, ready to answer while the context lasts.

        Raises:
            AnswersError: One of them cannot be loaded; from the context, or from what it gives.
        """
        ...


async def answer_all(
    batches: Sequence[Batch],
    answers: Answers,
    kept: AnswerLog,
    report: Callable[[int, int], None] = lambda done, of: None,
) -> dict[tuple[str, str], Answer]:
    """Every batch's answers, by the contender's digest and the question's.

    What is kept already is not asked again; where all is kept, nothing is loaded.

    Args:
        batches: What is asked.
        answers: Who is asked.
        kept: What was answered before; gets what is answered now, batch by batch.
        report: Is told how many questions are answered, of how many.

    Raises:
        AnswersError: There are none; what was answered until then is kept.
    """
    found: dict[tuple[str, str], Answer] = {}
    missing = []
    for batch in batches:
        known = kept.get(batch)
        if known is None:
            missing.append(batch)
        else:
            found |= {(batch.contender.digest, digest): each for digest, each in known.items()}
    total = sum(len(batch.questions) for batch in batches)
    done = total - sum(len(batch.questions) for batch in missing)
    report(done, total)
    if not missing:
        return found
    contenders = list({batch.contender.digest: batch.contender for batch in missing}.values())
    async with answers.opened(contenders) as answering:
        for batch in missing:
            said = await answering.ask(batch)
            by_question = {
                question.digest: answer
                for question, answer in zip(batch.questions, said, strict=True)
            }
            await asyncio.to_thread(kept.keep, batch, by_question)
            found |= {(batch.contender.digest, digest): a for digest, a in by_question.items()}
            done += len(batch.questions)
            report(done, total)
    return found


class ModelProcess:
    """Hugging Face and PEFT directories, answered for by a process of their own.

    torch stays out of this process, and its memory is free again when the answers are there. The
    process ends with this one, however this one ends: its standard input closes.

    Args:
        threads: Of torch; 0 leaves it to torch.
    """

    def __init__(self, threads: int = 0) -> None:
        self._threads = threads

    @contextlib.asynccontextmanager
    async def opened(self, contenders: Sequence[Contender]) -> AsyncIterator[Answering]:
        """See `Answers`."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "penstock_retrain.gates.generation",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=MAX_LINE,
            # Nothing is fetched: a directory has all of a model.
            env={**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
        )
        running = _Process(process, contenders)
        reading = asyncio.create_task(running.read_errors())
        try:
            await running.tell(
                {
                    "threads": self._threads,
                    "contenders": [
                        {"model": str(c.model), "adapter": c.adapter and str(c.adapter)}
                        for c in contenders
                    ],
                }
            )
            yield running
        finally:
            await _ended(process)
            await reading


class _Process:
    """Talks to the process in JSON lines: a batch there, its answers back."""

    def __init__(
        self, process: asyncio.subprocess.Process, contenders: Sequence[Contender]
    ) -> None:
        self._process = process
        self._numbers = {each.digest: number for number, each in enumerate(contenders)}
        self._tail: list[str] = []

    async def ask(self, batch: Batch) -> Sequence[Answer]:
        """See `Answering`."""
        await self.tell(
            {
                "contender": self._numbers[batch.contender.digest],
                "max_tokens": max(each.max_tokens for each in batch.questions),
                "questions": [
                    {
                        "messages": [dataclasses.asdict(turn) for turn in each.messages],
                        "prompt": each.prompt,
                    }
                    for each in batch.questions
                ],
            }
        )
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        try:
            said = json.loads(line)
            return [
                Answer(**each, seconds=said["seconds"], batch=len(batch.questions))
                for each in said["answers"]
            ]
        except (ValueError, KeyError, TypeError):
            raise await self._broken() from None

    async def tell(self, message: object) -> None:
        """Writes a line to the process."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            await self._process.stdin.drain()
        except (BrokenPipeError, ConnectionResetError):
            raise await self._broken() from None

    async def read_errors(self) -> None:
        """Keeps the last lines that the process complained with, until it ends."""
        assert self._process.stderr is not None
        async for line in self._process.stderr:
            self._tail = [*self._tail, line.decode(errors="replace").rstrip()][-TAIL_LINES:]

    async def _broken(self) -> AnswersError:
        code: int | None = None
        with contextlib.suppress(TimeoutError):
            code = await asyncio.wait_for(self._process.wait(), END_S)
            # What it said last may still be on its way.
            await asyncio.sleep(0.1)
        said = "\n".join(self._tail[-5:])
        return AnswersError(f"the process that answers ended with code {code}: {said}")


async def _ended(process: asyncio.subprocess.Process) -> None:
    """Ends the process; it has nothing to tidy up."""
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.wait()
    # asyncio gives a process's pipes back only once their end is read.
    assert process.stdout is not None
    await process.stdout.read()
