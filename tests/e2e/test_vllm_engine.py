"""vLLM behind the engine protocol: adapters while it generates, cancellation, isolated prefixes.

One engine answers for the whole module, since each start takes a minute; it runs float32, so that
its greedy answers can be compared with those of transformers and PEFT.
"""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import json
import shutil
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import torch
from prometheus_client import REGISTRY
from safetensors.torch import load_file, save_file

from examples.triage.adapter import MODULES, train_adapter
from examples.triage.evaluate import MODEL, load_model
from examples.triage.generate import Corpus, Rule, Split, generate
from penstock.errors import Unavailable
from penstock.manifest import write_manifest
from penstock_inference.adapters.store import AdapterStore
from penstock_inference.engines.errors import AdapterUnusable
from penstock_inference.engines.generation import Adapter, Completion, Finish, Generation, Message
from penstock_inference.engines.models import VllmModel
from penstock_inference.engines.vllm_engine import VllmEngine

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(900),
    # vLLM, torch and PEFT warn of what they do to each other.
    pytest.mark.filterwarnings("ignore"),
]

TEXTS = [ticket["text"] for ticket in generate(Corpus(Split.HELD_OUT), 10)]
ANSWER_TOKENS = 48
Answers = dict[str, list[str]]


def greedy(tokenizer: Any, model: Any) -> list[str]:
    """What transformers answers to each text, one at a time: no padding, no other batch."""
    answers = []
    for text in TEXTS:
        prompt = tokenizer.apply_chat_template(
            [{"role": "user", "content": text}],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )
        with torch.inference_mode():
            ids = model.generate(**prompt, do_sample=False, max_new_tokens=ANSWER_TOKENS)[0]
        answers.append(
            tokenizer.decode(ids[prompt["input_ids"].shape[1] :], skip_special_tokens=True)
        )
    return answers


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("adapters")


@pytest.fixture(scope="module")
def expected(store: Path) -> Answers:
    """What base model and two adapters answer, as transformers and PEFT say; writes them."""
    from peft import LoraConfig, get_peft_model

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # with more they wait for each other wherever cores are shared
    tokenizer, base = load_model(MODEL)
    answers = {"": greedy(tokenizer, base)}
    corpus = Corpus(Split.TRAIN, rule=Rule.CHANGED)
    trained = train_adapter(store / "trained-1", corpus, tickets=288)
    answers["trained-1"] = greedy(tokenizer, trained)
    torch.manual_seed(1)
    config = LoraConfig(r=4, target_modules=list(MODULES), init_lora_weights=False)
    drawn = get_peft_model(load_model(MODEL)[1], config)
    drawn.save_pretrained(store / "drawn-1")
    answers["drawn-1"] = greedy(tokenizer, drawn.eval())
    torch.set_num_threads(threads)
    # Otherwise equal answers would prove nothing.
    assert answers["trained-1"] != answers[""] != answers["drawn-1"]
    return answers


def made(store: Path) -> VllmEngine:
    return VllmEngine(
        VllmModel(
            name="triage",
            path=str(MODEL),
            dtype="float32",
            eager=True,
            max_running=16,
            adapters_dir=str(store),
            max_loras=2,
            max_lora_rank=8,
            max_cpu_loras=3,
        )
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(store: Path, expected: Answers) -> AsyncIterator[VllmEngine]:
    del expected  # made first: training and engine would share the cores
    engine = made(store)
    await engine.start()
    yield engine
    await ended(engine)


async def ended(engine: VllmEngine) -> None:
    """Stops an engine and lets go of what vLLM closes when it is collected only."""
    await engine.stop()
    await asyncio.sleep(0.1)
    gc.collect()


def work(text: str, **changes: Any) -> Generation:
    generation = Generation(
        request_id=uuid.uuid4().hex,
        messages=(Message("user", text),),
        prompt="",
        passages=(),
        max_tokens=ANSWER_TOKENS,
        temperature=0.0,
        top_p=1.0,
        top_k=0,
        presence_penalty=0.0,
        frequency_penalty=0.0,
        stop=(),
        seed=7,
        schema=None,
        priority=0,
        stream=False,
    )
    return dataclasses.replace(generation, **changes)


def rambling(**changes: Any) -> Generation:
    """Work that goes on for long: each token that was said is favoured, so it goes in circles."""
    circles = work("", messages=(), prompt="We cannot", frequency_penalty=-2.0, max_tokens=450)
    return dataclasses.replace(circles, **changes)


async def completed(engine: VllmEngine, generation: Generation) -> Completion:
    *_, last = [event async for event in engine.generate(generation)]
    assert isinstance(last, Completion)
    return last


async def answered(engine: VllmEngine, adapter: str) -> list[str]:
    """The engine's answers to all texts, asked at once."""
    ended = await asyncio.gather(*(completed(engine, work(t, adapter=adapter)) for t in TEXTS))
    return [completion.text for completion in ended]


def found(store: Path, name: str) -> Adapter:
    return AdapterStore(store).find(name)


async def test_adapters_load_while_it_generates_and_answer_as_peft_does(
    engine: VllmEngine, store: Path, expected: Answers
) -> None:
    assert await answered(engine, "") == expected[""]
    under_way = [asyncio.create_task(completed(engine, rambling(seed=n))) for n in range(4)]
    await asyncio.sleep(0.1)
    await engine.load_adapter(found(store, "trained-1"))
    await engine.load_adapter(found(store, "drawn-1"))
    assert sorted(engine.adapters) == ["drawn-1", "trained-1"]
    mixed = await asyncio.gather(*(answered(engine, name) for name in ("drawn-1", "", "trained-1")))
    assert mixed == [expected["drawn-1"], expected[""], expected["trained-1"]]
    assert all(c.completion_tokens for c in await asyncio.gather(*under_way))


async def test_an_unloaded_adapter_leaves_the_engine_and_comes_back_under_another_id(
    engine: VllmEngine, store: Path, expected: Answers
) -> None:
    await engine.load_adapter(found(store, "trained-1"))
    before = await engine._llm.list_loras()
    await engine.unload_adapter("trained-1")
    assert "trained-1" not in engine.adapters
    assert len(await engine._llm.list_loras()) == len(before) - 1
    with pytest.raises(Unavailable, match="not loaded"):
        await completed(engine, work("?", adapter="trained-1"))
    assert await answered(engine, "") == expected[""]
    await engine.load_adapter(found(store, "trained-1"))
    assert not await engine._llm.list_loras() <= before
    assert await answered(engine, "trained-1") == expected["trained-1"]


async def test_a_name_that_comes_back_with_other_weights_is_refused(
    engine: VllmEngine, store: Path, expected: Answers
) -> None:
    await engine.load_adapter(found(store, "trained-1"))
    other = dataclasses.replace(found(store, "drawn-1"), name="trained-1")
    for _ in ("loaded", "unloaded"):
        with pytest.raises(AdapterUnusable, match="its own"):
            await engine.load_adapter(other)
        await engine.unload_adapter("trained-1")
    await engine.load_adapter(found(store, "trained-1"))
    assert await answered(engine, "trained-1") == expected["trained-1"]


def with_nan(path: Path) -> None:
    weights = load_file(path / "adapter_model.safetensors")
    save_file({k: v * float("nan") for k, v in weights.items()}, path / "adapter_model.safetensors")


def of_another_width(path: Path) -> None:
    weights = load_file(path / "adapter_model.safetensors")
    cut = {k: v[:, :-8].contiguous() if "lora_A" in k else v for k, v in weights.items()}
    save_file(cut, path / "adapter_model.safetensors")


def of_a_higher_rank(path: Path) -> None:
    config = json.loads((path / "adapter_config.json").read_text())
    (path / "adapter_config.json").write_text(json.dumps({**config, "r": 64}))


def of_other_modules(path: Path) -> None:
    weights = load_file(path / "adapter_model.safetensors")
    renamed = {k.replace("q_proj", "nowhere"): v for k, v in weights.items()}
    save_file(renamed, path / "adapter_model.safetensors")


@pytest.mark.parametrize("harm", [with_nan, of_another_width, of_a_higher_rank, of_other_modules])
async def test_an_adapter_that_does_not_fit_is_refused_and_the_engine_goes_on(
    engine: VllmEngine, store: Path, expected: Answers, harm: Callable[[Path], None]
) -> None:
    await engine.load_adapter(found(store, "trained-1"))
    name = f"broken-{harm.__name__}"
    shutil.copytree(store / "trained-1", store / name)
    harm(store / name)
    write_manifest(store / name)
    before = await engine._llm.list_loras()
    with pytest.raises(AdapterUnusable, match=name):
        await engine.load_adapter(found(store, name))
    assert name not in engine.adapters
    assert await engine._llm.list_loras() == before
    assert await answered(engine, "") == expected[""]
    assert await answered(engine, "trained-1") == expected["trained-1"]
    await engine.check()


async def test_more_adapters_than_fit_are_refused_rather_than_evicted(
    engine: VllmEngine, store: Path, expected: Answers
) -> None:
    for name in ("trained-1", "drawn-1"):
        await engine.load_adapter(found(store, name))
    copies = [dataclasses.replace(found(store, "drawn-1"), name=f"copy-{n}") for n in (1, 2)]
    await engine.load_adapter(copies[0])
    with pytest.raises(AdapterUnusable, match="max_cpu_loras"):
        await engine.load_adapter(copies[1])
    # Three adapters of which a batch holds two: all of them answer, and as they should.
    names = ("trained-1", "drawn-1", "copy-1")
    answers = await asyncio.gather(*(answered(engine, name) for name in names))
    assert answers == [expected["trained-1"], expected["drawn-1"], expected["drawn-1"]]
    await engine.unload_adapter("copy-1")


async def test_prefixes_are_shared_within_a_tenant_and_an_adapter_only(
    engine: VllmEngine, store: Path, expected: Answers
) -> None:
    await engine.load_adapter(found(store, "trained-1"))
    text = " ".join(TEXTS)[:1200]

    async def cached(salt: str, adapter: str = "") -> int:
        asked = work(text, cache_salt=salt, adapter=adapter, max_tokens=1)
        return (await completed(engine, asked)).cached_prompt_tokens

    assert await cached("acme") == 0
    assert await cached("acme") > 0
    assert await cached("umbrella") == 0
    assert await cached("") == 0
    assert await cached("acme", "trained-1") == 0
    assert await cached("acme", "trained-1") > 0
    assert await cached("umbrella", "trained-1") == 0


async def test_seeded_requests_with_more_prompt_than_a_step_reads_are_answered(
    engine: VllmEngine,
) -> None:
    long = " ".join(TEXTS)[:1200]
    works = [work(f"{n} {long}", temperature=1.0, seed=n, max_tokens=2) for n in range(16)]
    ended = await asyncio.gather(*(completed(engine, each) for each in works))
    assert sum(each.prompt_tokens for each in ended) > 4096  # a step reads 2,048
    await engine.check()


def reading(name: str) -> float:
    """vLLM's own figure, over all its label sets."""
    return sum(
        sample.value
        for metric in REGISTRY.collect()
        for sample in metric.samples
        if sample.name == name
    )


async def until(condition: Callable[[], bool], within_s: float) -> float:
    began = time.monotonic()
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.005)
    return time.monotonic() - began


@pytest.mark.parametrize("stream", [False, True])
async def test_cancelled_work_leaves_within_a_second_and_says_what_it_used(
    engine: VllmEngine, stream: bool
) -> None:
    drawn_before = reading("vllm:generation_tokens_total")
    works = [rambling(stream=stream, seed=n) for n in range(6)]
    tasks = [asyncio.create_task(completed(engine, each)) for each in works]
    await until(lambda: reading("vllm:num_requests_running") == len(works), 30)
    await until(lambda: reading("vllm:generation_tokens_total") > drawn_before + 30, 30)
    for each in works[1:]:  # the first goes on: vLLM tells its figures while it works
        engine.cancel(each.request_id)
    took_s = await until(lambda: reading("vllm:num_requests_running") == 1, 10)
    ended: Sequence[Completion] = await asyncio.gather(*tasks[1:])
    engine.cancel(works[0].request_id)
    last = await tasks[0]
    assert took_s < 1
    assert {each.finish for each in (*ended, last)} == {Finish.CANCELLED}
    for each in (*ended, last):
        assert 0 < each.completion_tokens < 450
        assert each.prompt_tokens > 0
        assert len(each.log_probabilities) == each.completion_tokens
    drawn = reading("vllm:generation_tokens_total") - drawn_before
    assert sum(each.completion_tokens for each in (*ended, last)) == drawn


async def test_work_cancelled_before_it_was_looked_at_used_nothing(engine: VllmEngine) -> None:
    running = [asyncio.create_task(completed(engine, rambling(seed=n))) for n in range(16)]
    await until(lambda: reading("vllm:num_requests_running") == 16, 30)
    waiting = rambling(priority=5)
    task = asyncio.create_task(completed(engine, waiting))
    await asyncio.sleep(0.05)
    engine.cancel(waiting.request_id)
    ended = await asyncio.wait_for(task, 1)
    assert (ended.finish, ended.prompt_tokens, ended.completion_tokens) == (Finish.CANCELLED, 0, 0)
    for each in running:
        each.cancel()  # a stream that broke: nothing is told, the work leaves all the same
    await until(lambda: engine._llm.get_num_unfinished_requests() == 0, 1)


async def test_work_cancelled_at_once_ends(engine: VllmEngine) -> None:
    generation = rambling()
    task = asyncio.create_task(completed(engine, generation))
    await asyncio.sleep(0)  # it has begun, and vLLM does not know it yet
    engine.cancel(generation.request_id)
    assert (await asyncio.wait_for(task, 2)).finish is Finish.CANCELLED
    engine.cancel(generation.request_id)  # has ended: nothing happens


async def test_a_fresh_engine_with_the_adapter_answers_the_same(
    engine: VllmEngine, store: Path, expected: Answers
) -> None:
    # The last of the module: another engine takes the first one's metrics off the registry.
    await engine.load_adapter(found(store, "trained-1"))
    fresh = made(store)
    await fresh.start()
    try:
        await fresh.load_adapter(found(store, "trained-1"))
        assert await answered(fresh, "trained-1") == await answered(engine, "trained-1")
    finally:
        await ended(fresh)
