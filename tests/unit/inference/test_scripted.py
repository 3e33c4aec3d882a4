"""The scripted engine: seeded words, slots, cancellation, divergence and poison."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from penstock_inference.engines.generation import (
    Adapter,
    AdapterHost,
    Completion,
    Delta,
    DirectEngine,
    Finish,
    Generation,
    Message,
)
from penstock_inference.engines.models import ScriptedModel
from penstock_inference.engines.recording import Recording, RecordingError
from penstock_inference.engines.scripted import POISONED_STATUS, ScriptedEngine

WORK = Generation(
    request_id="r",
    messages=(),
    prompt="what is it",
    passages=(),
    max_tokens=8,
    temperature=0.0,
    top_p=1.0,
    top_k=0,
    presence_penalty=0.0,
    frequency_penalty=0.0,
    stop=(),
    seed=11,
    schema=None,
    priority=0,
    stream=False,
)


def engine_of(**options: object) -> ScriptedEngine:
    settings = {"first_token_s": 0.0, "token_s": 0.0, "max_tokens": 8, **options}
    return ScriptedEngine(**settings)  # type: ignore[arg-type]


async def completed(engine: ScriptedEngine, **changes: object) -> Completion:
    generation = dataclasses.replace(WORK, **changes)  # type: ignore[arg-type]
    *_, last = [event async for event in engine.generate(generation)]
    assert isinstance(last, Completion)
    return last


def test_it_is_every_kind_of_engine() -> None:
    assert isinstance(engine_of(), DirectEngine)
    assert isinstance(engine_of(), AdapterHost)


async def test_words_depend_on_seed_adapter_and_system_prompt() -> None:
    engine = engine_of()
    await engine.load_adapter(Adapter("v1", Path(), ""))
    assert set(engine.adapters) == {"v1"}
    changes: list[dict[str, object]] = [
        {},
        {"seed": 12},
        {"adapter": "v1"},
        {"system_prompt": "Be brief."},
    ]
    texts = [(await completed(engine, **each)).text for each in changes]
    assert len(set(texts)) == 4
    assert texts == [(await completed(engine_of(), **each)).text for each in changes]
    await engine.unload_adapter("v1")
    assert not engine.adapters


async def test_a_run_begun_again_diverges_in_the_share_that_was_asked_for() -> None:
    engine = engine_of(diverge=0.3)
    seeds = range(400)
    first = [(await completed(engine, seed=seed)).text for seed in seeds]
    again = [(await completed(engine, seed=seed, attempt=2)).text for seed in seeds]
    third = [(await completed(engine, seed=seed, attempt=3)).text for seed in seeds]
    assert sum(a != b for a, b in zip(first, again, strict=True)) == 122
    assert [(await completed(engine, seed=seed, attempt=2)).text for seed in seeds] == again
    assert third != again
    faithful = engine_of()
    assert [(await completed(faithful, seed=seed, attempt=2)).text for seed in seeds] == first


@pytest.mark.parametrize("stream", [False, True])
async def test_cancelled_work_says_what_was_made(stream: bool) -> None:
    engine = engine_of(token_s=0.02, max_tokens=1000)
    events: list[Delta | Completion | Exception] = []
    engine.begin(dataclasses.replace(WORK, max_tokens=1000, stream=stream), events.append)
    await asyncio.sleep(0.1)
    engine.cancel("r")
    engine.cancel("r")
    last = events[-1]
    assert isinstance(last, Completion)
    assert (last.finish, last.prompt_tokens) == (Finish.CANCELLED, 3)
    assert 1 <= last.completion_tokens < 100
    assert len(last.text.split()) == last.completion_tokens
    if stream:
        assert len(events) - 1 == last.completion_tokens
    said = len(events)
    await asyncio.sleep(0.05)
    assert len(events) == said


async def test_slots_bound_what_runs_and_priority_orders_what_waits() -> None:
    engine = engine_of(first_token_s=0.01, slots=1)
    ended: list[str] = []

    def begin(name: str, priority: int) -> None:
        generation = dataclasses.replace(WORK, request_id=name, priority=priority)
        engine.begin(generation, lambda _: ended.append(name))

    for name, priority in (("first", 0), ("late", 5), ("gone", 1), ("soon", -1)):
        begin(name, priority)
    engine.cancel("gone")  # it waits: nothing was used
    assert ended == ["gone"]
    async with asyncio.timeout(10):
        while len(ended) < 4:
            await asyncio.sleep(0.005)
    assert ended == ["gone", "first", "soon", "late"]


async def test_cancelled_work_makes_room() -> None:
    engine = engine_of(first_token_s=60, slots=1)
    events: list[object] = []
    engine.begin(dataclasses.replace(WORK, request_id="stuck"), events.append)
    engine.begin(dataclasses.replace(WORK, request_id="next", stream=True), events.append)
    engine.cancel("stuck")
    assert engine._runs["next"].timer is not None
    engine.cancel("next")


@pytest.mark.parametrize("stream", [False, True])
async def test_recorded_answers_are_given_again(tmp_path: Path, stream: bool) -> None:
    file = tmp_path / "answers.jsonl"
    lines = [
        {"prompt": "what is it", "answer": '{"it": "a lock"}', "adapted": "a weir"},
        {"prompt": "who", "answer": "me"},
        {"prompt": "why", "answer": ""},
        {"prompt": "one\u2028line", "answer": "yes\x85"},
    ]
    file.write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in lines))
    engine = engine_of(recording=Recording(file))
    asked = partial(completed, engine, stream=stream)
    turns = (Message("user", "who"), Message("assistant", "?"), Message("user", "what is it"))
    assert (await asked()).text == '{"it": "a lock"}'
    assert (await asked(prompt="", messages=turns)).text == '{"it": "a lock"}'
    assert (await asked(adapter="v1")).text == "a weir"
    assert (await asked(prompt="who", adapter="v1")).text == "me"
    assert (await asked(prompt="why")).completion_tokens == 0
    assert (await asked(prompt="one\u2028line")).text == "yes\x85"
    cut = await asked(max_tokens=2)
    assert (cut.text, cut.finish, cut.completion_tokens) == ('{"it": "a', Finish.LENGTH, 2)
    assert (await asked(prompt="other")).text == (await completed(engine_of(), prompt="other")).text


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("{", "answers.jsonl:1: no JSON"),
        ('{"prompt": "x", "answer": 1}', "an object of texts"),
        ('{"prompt": "x"}', "needs prompt and answer"),
        ('{"prompt": "x", "answer": "y", "more": "z"}', "needs prompt and answer"),
        (None, "cannot be read"),
    ],
)
def test_a_recording_that_is_none_is_refused(
    tmp_path: Path, written: str | None, message: str
) -> None:
    file = tmp_path / "answers.jsonl"
    if written is not None:
        file.write_text(written)
    with pytest.raises(RecordingError, match=message):
        Recording(file)
    problems = ScriptedModel(name="m", recording=str(file)).problems({})
    assert [message in each for each in problems] == [True]


def test_poison_ends_the_process_and_only_where_it_is_switched_on() -> None:
    script = """
import asyncio, sys
sys.path.insert(0, {here!r})
from test_scripted import completed, engine_of

async def run():
    await completed(engine_of(poison="arsenic"), prompt="plain")
    await completed(engine_of(), prompt="arsenic")
    print("alive", flush=True)
    await completed(engine_of(poison="arsenic"), prompt="some arsenic, please")

asyncio.run(run())
"""
    here = str(Path(__file__).parent)
    ended = subprocess.run(
        [sys.executable, "-c", script.format(here=here)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == POISONED_STATUS, ended.stderr
    assert ended.stdout.startswith("alive\n")
