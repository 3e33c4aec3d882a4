"""Directory, dtype, prompts and the scripted engine."""

from __future__ import annotations

import dataclasses

import pytest

from penstock_inference.engines.generation import (
    Completion,
    Delta,
    Finish,
    Generation,
    Message,
    Passage,
)
from penstock_inference.engines.processor import choose_dtype, thread_environment
from penstock_inference.engines.prompting import conversation
from penstock_inference.engines.scripted import ScriptedEngine
from penstock_inference.scaling.directory import Announcement, Directory

WORK = Generation(
    request_id="r",
    messages=(),
    prompt="p",
    passages=(),
    max_tokens=4,
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


def test_a_silent_replica_is_forgotten() -> None:
    now = [0.0]
    directory = Directory(clock=lambda: now[0], ttl_s=5)
    directory.announce(Announcement("a", "h:1", "m", 0))
    now[0] = 3.0
    directory.announce(Announcement("b", "h:2", "m", 0))
    assert [a.replica_id for a in directory.live()] == ["a", "b"]
    now[0] = 6.0
    assert [a.replica_id for a in directory.live()] == ["b"]
    directory.withdraw("b")
    assert directory.live() == []


@pytest.mark.parametrize(
    ("setting", "gpu", "flags", "dtype"),
    [
        ("auto", False, {"avx2"}, "float32"),
        ("auto", False, {"avx512f"}, "float32"),
        ("auto", False, {"avx512_bf16"}, "bfloat16"),
        ("auto", False, {"amx_bf16"}, "bfloat16"),
        ("auto", True, set(), "bfloat16"),
        ("float16", False, {"avx512_bf16"}, "float16"),
    ],
)
def test_dtype_follows_the_processor(setting: str, gpu: bool, flags: set[str], dtype: str) -> None:
    assert choose_dtype(setting, gpu=gpu, flags=frozenset(flags)) == dtype


@pytest.mark.parametrize(
    ("cores", "threads"),
    [(1, "1"), (2, "1"), (4, "3")],
)
def test_on_few_cores_the_model_runs_in_one_process(cores: int, threads: str) -> None:
    chosen = thread_environment({"OMP_NUM_THREADS": "2"}, gpu=False, cores=cores)
    assert chosen["OMP_NUM_THREADS"] == threads  # Ray's own choice would be the actor's CPUs
    assert chosen["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"


def test_elsewhere_vllm_decides_and_an_operator_may_everywhere() -> None:
    assert thread_environment({}, gpu=True, cores=2) == {}
    assert thread_environment({}, gpu=False, cores=8) == {}
    bound = {"VLLM_CPU_OMP_THREADS_BIND": "0"}
    assert thread_environment(bound, gpu=False, cores=2) == {}


def test_passages_stand_before_the_last_user_turn() -> None:
    turns = conversation(
        dataclasses.replace(
            WORK,
            prompt="",
            messages=(Message("user", "a"), Message("assistant", "b"), Message("user", "c")),
            passages=(Passage("doc", "facts"),),
        )
    )
    assert [t["content"] for t in turns] == ["a", "b", "[doc] facts", "c"]


def test_a_templates_words_stand_before_the_requests_own() -> None:
    told = dataclasses.replace(WORK, system_prompt="Be brief.")
    assert conversation(told) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "p"},
    ]
    turns = conversation(
        dataclasses.replace(
            told,
            prompt="",
            messages=(Message("system", "Own words."), Message("user", "a")),
            passages=(Passage("doc", "facts"),),
        )
    )
    assert [t["content"] for t in turns] == ["Be brief.", "Own words.", "[doc] facts", "a"]


def test_a_prompt_alone_is_continued_as_it_is() -> None:
    assert conversation(WORK) == []


async def test_the_script_says_the_same_for_one_seed() -> None:
    engine = ScriptedEngine(first_token_s=0, token_s=0, max_tokens=8)
    first = [event async for event in engine.generate(WORK)]
    again = [event async for event in engine.generate(WORK)]
    other = [event async for event in engine.generate(dataclasses.replace(WORK, seed=12))]
    assert isinstance(first[-1], Completion)
    assert isinstance(again[-1], Completion)
    assert isinstance(other[-1], Completion)
    assert first[-1].text == again[-1].text != other[-1].text
    assert (first[-1].completion_tokens, first[-1].finish) == (4, Finish.LENGTH)


async def test_streamed_words_make_up_the_answer() -> None:
    engine = ScriptedEngine(first_token_s=0, token_s=0, max_tokens=3)
    events = [e async for e in engine.generate(dataclasses.replace(WORK, stream=True))]
    deltas = [event.text for event in events if isinstance(event, Delta)]
    assert len(deltas) == 3
    assert isinstance(events[-1], Completion)
    assert "".join(deltas) == events[-1].text
    assert events[-1].finish is Finish.STOP


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray's own, on import
def test_a_ray_of_its_own_has_one_address() -> None:
    from penstock_inference.replicas.replica import single_node

    assert single_node("0.0.0.0") == "127.0.0.1"
    assert single_node("10.1.2.3") == "10.1.2.3"
