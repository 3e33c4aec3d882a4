"""What a training wrote, served by vLLM: it answers as PEFT and transformers do."""

from __future__ import annotations

import asyncio
import gc
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from examples.triage.evaluate import MODEL, load_model
from penstock.manifest import write_manifest
from penstock_inference.adapters.store import AdapterStore
from penstock_inference.engines.models import VllmModel
from penstock_inference.engines.vllm_engine import VllmEngine
from penstock_retrain.dataset.writing import Dataset
from penstock_retrain.training.fitting import fit
from penstock_retrain.training.methods import METHODS
from penstock_retrain.training.runs import Run
from tests.e2e.test_vllm_engine import TEXTS as TICKETS
from tests.e2e.test_vllm_engine import completed, greedy, work
from tests.integration.triage_datasets import asked, write_triage

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(900),
    # vLLM, torch, TRL and PEFT warn of what they do to each other.
    pytest.mark.filterwarnings("ignore"),
]

RANK = 8
POLICY = {
    "epochs": 1,
    "batch_size": 24,
    "learning_rate": 0.01,
    "lora": {"rank": RANK},
    "evaluation": {"answers": 0},
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_triage(tmp_path_factory.mktemp("dataset") / "job-1", train=360, held_out=24)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # with more they wait for each other wherever cores are shared
    yield
    torch.set_num_threads(threads)


def trained(place: Path, dataset: Dataset, **policy: Any) -> Path:
    """A training's result."""
    request = asked(dataset, {**POLICY, **policy})
    run = Run(place)
    run.prepare(request)
    fit(request, METHODS[request.policy.method], run, lambda _: None)
    return run.result


async def answered(model: VllmModel, adapter: Path | None = None) -> list[str]:
    """vLLM's answers to all tickets, through an engine that is ended again."""
    engine = VllmEngine(model)
    await engine.start()
    try:
        name = ""
        if adapter is not None:
            name = adapter.name
            await engine.load_adapter(AdapterStore(adapter.parent).find(name))
        asked_ = [completed(engine, work(text, adapter=name)) for text in TICKETS]
        return [completion.text for completion in await asyncio.gather(*asked_)]
    finally:
        await engine.stop()
        await asyncio.sleep(0.1)
        gc.collect()  # vLLM closes some things when it is collected only


async def test_a_trained_adapter_answers_as_peft_does(dataset: Dataset, tmp_path: Path) -> None:
    from peft import PeftModel

    store = tmp_path / "adapters"
    adapter = store / "triage-v1"
    shutil.copytree(trained(tmp_path / "run", dataset), adapter)
    write_manifest(adapter)
    tokenizer, base = load_model(MODEL)
    before = greedy(tokenizer, base)
    expected = greedy(tokenizer, PeftModel.from_pretrained(base, adapter).eval())
    assert expected != before  # otherwise equal answers would prove nothing
    model = VllmModel(
        name="triage",
        path=str(MODEL),
        dtype="float32",
        eager=True,
        max_running=16,
        adapters_dir=str(store),
        max_loras=1,
        max_lora_rank=RANK,
    )
    assert await answered(model, adapter) == expected


async def test_merged_weights_answer_as_transformers_says(dataset: Dataset, tmp_path: Path) -> None:
    result = trained(tmp_path / "run", dataset, method="dora")
    before = greedy(*load_model(MODEL))
    expected = greedy(*load_model(result))
    assert expected != before
    model = VllmModel(
        name="triage-v2", path=str(result), dtype="float32", eager=True, max_running=16
    )
    assert await answered(model) == expected
