"""A contender in a process of its own, told what to do by lines on its standard input.

Usage: python bench/contender.py async-llm|ray-serve|ray-llm MODEL

It prints a line `ready` (ray-llm: with its address), then a line of JSON for each line read:
`{"count": 512, "logprobs": false}` asks for a round with so many tickets.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from workload import MAX_TOKENS, NAME, OUTSTANDING, engine_arguments, tickets

Ask = Callable[[str, bool], Awaitable[int]]  # a ticket to the number of tokens of its answer


class Llm:
    """AsyncLLM, asked as penstock's engine asks it: a chat of one turn, greedy."""

    def __init__(self, model: str) -> None:
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        self._llm = AsyncLLM.from_engine_args(AsyncEngineArgs(**engine_arguments(Path(model))))  # type: ignore[arg-type]
        self._tokenizer: Any = None

    async def ask(self, text: str, logprobs: bool) -> int:
        """The tokens of an answer."""
        from vllm.inputs import TokensPrompt
        from vllm.sampling_params import RequestOutputKind, SamplingParams

        if self._tokenizer is None:
            found = self._llm.get_tokenizer()
            self._tokenizer = await found if asyncio.iscoroutine(found) else found
        rendered = self._tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], add_generation_prompt=True, tokenize=False
        )
        ids = self._tokenizer(rendered, add_special_tokens=False)["input_ids"]
        sampling = SamplingParams(
            temperature=0,
            max_tokens=MAX_TOKENS,
            logprobs=0 if logprobs else None,
            flat_logprobs=logprobs,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        count = 0
        prompt = TokensPrompt(prompt_token_ids=list(ids))
        async for output in self._llm.generate(prompt, sampling, uuid.uuid4().hex):
            count += len(output.outputs[0].token_ids)
        return count

    async def __call__(self, text: str, logprobs: bool) -> int:
        """The same, for a deployment's handle."""
        return await self.ask(text, logprobs)


async def rounds(ask: Ask) -> None:
    """Runs a round for each line read."""
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        wanted = json.loads(line)
        slots = asyncio.Semaphore(OUTSTANDING)

        async def one(text: str, slots: asyncio.Semaphore, logprobs: bool) -> int:
            async with slots:
                return await ask(text, logprobs)

        texts = tickets(wanted["count"])
        started = time.perf_counter()
        tokens = await asyncio.gather(
            *(one(text, slots, bool(wanted.get("logprobs"))) for text in texts)
        )
        elapsed_s = time.perf_counter() - started
        say({"seconds": elapsed_s, "tokens": sum(tokens), "shortest": min(tokens)})


def say(what: object) -> None:
    """Writes a line of JSON, told from what libraries print by its first word."""
    print(f"bench {json.dumps(what)}", flush=True)


async def in_process(model: str) -> None:
    """AsyncLLM in this process; its engine core is a process of its own, as always."""
    llm = Llm(model)
    await llm.ask("ready?", False)
    say("ready")
    await rounds(llm.ask)


async def in_ray_serve(model: str) -> None:
    """AsyncLLM in a replica, called through a deployment's handle."""
    import ray
    from ray import serve

    _start_ray(ray)
    deployment = serve.deployment(
        Llm, max_ongoing_requests=4 * OUTSTANDING, ray_actor_options={"num_cpus": 1}
    )
    serve.start(proxy_location="Disabled")
    handle = serve.run(deployment.bind(model), name="bench", route_prefix=None)

    async def ask(text: str, logprobs: bool) -> int:
        return int(await handle.remote(text, logprobs))

    await ask("ready?", False)
    say("ready")
    await rounds(ask)
    serve.shutdown()
    ray.shutdown()


def in_ray_llm(model: str) -> None:
    """`ray.serve.llm` with its OpenAI application, on CPUs only."""
    import ray
    from ray import serve
    from ray.serve.llm import LLMConfig, ModelLoadingConfig, build_openai_app

    port = int(os.environ["BENCH_PORT"])
    _start_ray(ray)
    arguments = engine_arguments(Path(model))
    for name in ("model", "served_model_name"):
        del arguments[name]
    config = LLMConfig(
        model_loading_config=ModelLoadingConfig(model_id=NAME, model_source=model),
        engine_kwargs=arguments,
        placement_group_config={"bundles": [{"CPU": 1}]},
        deployment_config={"num_replicas": 1, "max_ongoing_requests": 4 * OUTSTANDING},
        log_engine_metrics=False,
    )
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(build_openai_app({"llm_configs": [config]}), name="bench")
    say("ready")
    sys.stdin.readline()
    serve.shutdown()
    ray.shutdown()


def _start_ray(ray: Any) -> None:
    here = str(Path(__file__).parent)
    ray.init(
        address="local",
        include_dashboard=False,
        num_cpus=4,
        object_store_memory=100 * 1024 * 1024,
        log_to_driver=True,
        runtime_env={"env_vars": {"PYTHONPATH": f"{here}:{os.environ.get('PYTHONPATH', '')}"}},
    )


if __name__ == "__main__":  # the engine is spawned, which imports this module again
    kind, path = sys.argv[1:]
    if kind == "async-llm":
        asyncio.run(in_process(path))
    elif kind == "ray-serve":
        asyncio.run(in_ray_serve(path))
    else:
        in_ray_llm(path)
