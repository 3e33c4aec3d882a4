"""vLLM behind the engine protocol. The only module that knows vLLM and torch."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
import uuid
from collections.abc import AsyncIterator, Collection, Sequence
from typing import Any

from prometheus_client import REGISTRY

from penstock.errors import Code, InvalidRequest, Unavailable
from penstock.telemetry import logger
from penstock.watchdog import Look, Watch
from penstock_inference.engines.errors import AdapterUnusable, EngineLost, EngineUnusable
from penstock_inference.engines.generation import Adapter, Completion, Delta, Finish, Generation
from penstock_inference.engines.models import VllmModel
from penstock_inference.engines.processor import choose_dtype, processor_flags, thread_environment
from penstock_inference.engines.prompting import conversation
from penstock_inference.engines.vllm_lora import VllmAdapters, lora_arguments, widths_of

__all__ = ["VllmEngine"]

log = logger(__name__)

CHECK_S = 60.0  # a check that takes longer means that generation stands still
STALLED_S = 300.0  # longer than any step should take, the longest prompt's too
ABORT_AGAIN_S = 0.02
LONG_PROMPT_CHARS = 20_000  # tokenised in a thread, so that the streams go on


class VllmEngine:
    """Holds vLLM's AsyncLLM directly: Serve's own wrapper knows no adapters on plain storage."""

    def __init__(self, model: VllmModel) -> None:
        self._model = model
        self._llm: Any = None
        self._tokenizer: Any = None
        self._context = 0
        self._running = 0
        self._last_output = 0.0
        self._watch = Watch(STALLED_S)
        self._adapters: VllmAdapters | None = None
        self._live: set[str] = set()
        self._cancelling: dict[str, asyncio.Task[None]] = {}

    @property
    def slots(self) -> int:
        """See `Engine`."""
        return self._model.max_running

    async def start(self) -> None:
        """See `Engine`. Takes half a minute or more: imports, weights, compilation, one answer."""
        model = self._model
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", f"{model.kv_cache_gib:g}")
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        gpu = model.gpus > 0
        os.environ.update(
            thread_environment(os.environ, gpu=gpu, cores=len(os.sched_getaffinity(0)))
        )
        from vllm.config import StructuredOutputsConfig
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        dtype = choose_dtype(model.dtype, gpu=gpu, flags=processor_flags())
        # Compiling for a CPU needs a C++ compiler; without one vLLM would fail late and obscurely.
        eager = model.eager or (not gpu and shutil.which("g++") is None)
        log.info("loading model", model=model.path, dtype=dtype, eager=eager)
        arguments = AsyncEngineArgs(
            model=model.path,
            served_model_name=[model.name],
            dtype=dtype,
            max_model_len=model.max_model_len,
            max_num_seqs=model.max_running,
            gpu_memory_utilization=model.gpu_memory_utilization,
            enable_prefix_caching=True,
            # On a CPU vLLM 0.32 dies of a seeded request whose prompt is read in two steps: it
            # rewinds the request's generator, which there has no offset. All of ours are seeded.
            enable_chunked_prefill=gpu,
            enforce_eager=eager,
            **self._lora_arguments(),
            scheduling_policy="priority",
            # Where a schema allows any whitespace, a weak model writes nothing else.
            structured_outputs_config=StructuredOutputsConfig(
                backend="xgrammar", disable_any_whitespace=True
            ),
            seed=0,
        )
        try:
            self._llm = AsyncLLM.from_engine_args(arguments)
        except (ValueError, RuntimeError, OSError) as error:
            raise EngineUnusable(f"vLLM cannot serve {model.path}: {error}") from error
        self._context = self._llm.model_config.max_model_len
        self._tokenizer = await _resolved(self._llm.get_tokenizer())
        await self._probe()
        if model.adapters_dir:
            self._adapters = VllmAdapters(
                self._llm,
                capacity=max(model.max_loras, model.max_cpu_loras),
                widths=await asyncio.to_thread(widths_of, model.path),
                probe=self._probe,
            )
            await self._adapters.warm_up()
        log.info("model answers", model=model.path, context_tokens=self._context)

    def _lora_arguments(self) -> dict[str, Any]:
        model = self._model
        if not model.adapters_dir:
            return {}
        return lora_arguments(
            on_cpu=model.gpus == 0,
            mixed=model.max_loras,
            loaded=model.max_cpu_loras,
            rank=model.max_lora_rank,
        )

    async def generate(self, generation: Generation) -> AsyncIterator[Delta | Completion]:
        """See `Engine`."""
        self._live.add(generation.request_id)
        try:
            tokens = await self._tokenize(generation)
            self._refuse_unfit(generation, len(tokens))
            async for event in self._answer(generation, tokens, self._lora(generation.adapter)):
                yield event
        finally:
            self._live.discard(generation.request_id)

    def _lora(self, name: str) -> Any:
        """The handle that vLLM knows a loaded adapter by; None for the base model."""
        if not name:
            return None
        lora = self._adapters.request(name) if self._adapters is not None else None
        if lora is None:
            raise Unavailable(f"this engine has not loaded the adapter {name}")
        return lora

    async def _answer(
        self, generation: Generation, tokens: Sequence[int], lora: Any
    ) -> AsyncIterator[Delta | Completion]:
        started = time.monotonic()
        logprobs: list[float] = []
        text: list[str] = []
        count = 0
        first_token_s = 0.0
        async for output in self._outputs(generation, tokens, lora):
            piece = output.outputs[0]
            if piece.token_ids and not count:
                first_token_s = _first_token_s(output, time.monotonic() - started)
            count += len(piece.token_ids)
            logprobs.extend(piece.logprobs.logprobs if piece.logprobs else ())
            text.append(piece.text)
            if generation.stream and piece.text:
                yield Delta(piece.text, len(piece.token_ids))
            if output.finished:
                if piece.finish_reason not in _FINISH:
                    raise Unavailable(f"the engine gave up: {piece.finish_reason}")
                yield Completion(
                    text="".join(text),
                    finish=_FINISH[piece.finish_reason],
                    # Cancelled before the first token: nothing says that the prompt was read.
                    prompt_tokens=len(tokens) if count else 0,
                    completion_tokens=count,
                    cached_prompt_tokens=output.num_cached_tokens or 0,
                    log_probabilities=logprobs,
                    first_token_s=first_token_s,
                )

    async def _outputs(
        self, generation: Generation, tokens: Sequence[int], lora: Any
    ) -> AsyncIterator[Any]:
        from vllm.exceptions import VLLMClientError
        from vllm.v1.engine.exceptions import EngineDeadError

        if not self._running:
            self._last_output = time.monotonic()
        self._running += 1
        try:
            async for output in self._llm.generate(
                _prompt(generation, tokens),
                self._sampling(generation),
                generation.request_id,
                lora_request=lora,
                priority=generation.priority,
            ):
                self._last_output = time.monotonic()
                yield output
        except EngineDeadError as error:
            raise EngineLost("vLLM's engine process died") from error
        except (VLLMClientError, ValueError) as error:  # parameters; an unusable schema among them
            field = "sampling" if generation.schema is None else "response_schema"
            raise InvalidRequest(f"the engine refuses the request: {error}", field=field) from error
        finally:
            self._running -= 1

    def cancel(self, request_id: str) -> None:
        """See `Engine`."""
        if request_id in self._live and request_id not in self._cancelling:
            task = self._cancelling[request_id] = asyncio.create_task(self._abort(request_id))
            task.add_done_callback(lambda _: self._cancelling.pop(request_id, None))

    async def _abort(self, request_id: str) -> None:
        # Aborted from outside, vLLM ends the iteration with an output of what it had; aborted by
        # cancelling the iteration, it tells nothing. Before the request is registered there, an
        # abort has no effect: hence again.
        while request_id in self._live:
            await self._llm.abort(request_id)
            await asyncio.sleep(ABORT_AGAIN_S)

    async def check(self) -> None:
        """See `Engine`: generates a token when idle; work under way has to make progress."""
        await self._llm.check_health()
        if self._adapters is not None:
            await asyncio.wait_for(self._adapters.forget_lost(), CHECK_S)
        silent_s = time.monotonic() - self._last_output
        if not self._running and silent_s > CHECK_S / 2:
            await asyncio.wait_for(self._probe(), CHECK_S)
            # Under load a probe would only wait behind a full batch.
        # vLLM's own counts move with every step, also while no answer is streamed.
        generation = Look(self._running > 0, (self._last_output, _counted_tokens()))
        for stalled in self._watch.look({"generation": generation}, time.monotonic()):
            raise EngineLost(f"{stalled}, with {self._running} requests in the engine")

    async def stop(self) -> None:
        """See `Engine`."""
        llm, self._llm, self._adapters = self._llm, None, None
        if llm is not None:
            llm.shutdown()

    @property
    def adapters(self) -> Collection[str]:
        """See `AdapterHost`."""
        return self._adapters.names if self._adapters is not None else ()

    async def load_adapter(self, adapter: Adapter) -> None:
        """See `AdapterHost`."""
        if self._adapters is None:
            raise AdapterUnusable(
                f"{self._model.name} serves no adapters: set its adapters_dir and restart it"
            )
        await self._adapters.load(adapter)

    async def unload_adapter(self, name: str) -> None:
        """See `AdapterHost`."""
        if self._adapters is not None:
            await self._adapters.unload(name)

    async def _probe(self, lora: Any = None) -> float:
        """Generates a token; returns its log-probability."""
        probe = Generation(
            request_id=f"probe-{uuid.uuid4().hex}",
            messages=(),
            prompt="ready?",
            passages=(),
            max_tokens=1,
            temperature=0.0,
            top_p=1.0,
            top_k=0,
            presence_penalty=0.0,
            frequency_penalty=0.0,
            stop=(),
            seed=0,
            schema=None,
            priority=-1000,
            stream=False,
        )
        drawn = 0.0
        async for event in self._answer(probe, await self._tokenize(probe), lora):
            if isinstance(event, Completion):
                drawn = sum(event.log_probabilities)
        return drawn

    async def _tokenize(self, generation: Generation) -> Sequence[int]:
        length = len(generation.prompt) + sum(len(m.content) for m in generation.messages)
        if length > LONG_PROMPT_CHARS:
            return await asyncio.to_thread(self._token_ids, generation)
        return self._token_ids(generation)

    def _token_ids(self, generation: Generation) -> Sequence[int]:
        turns = conversation(generation)
        if not turns:
            return list(self._tokenizer(generation.prompt)["input_ids"])
        try:
            rendered = self._tokenizer.apply_chat_template(
                turns, add_generation_prompt=True, tokenize=False
            )
        except Exception as error:  # a template may raise anything; jinja's own type among them
            raise InvalidRequest(
                f"the model's chat template refuses these messages: {error}", field="messages"
            ) from error
        ids = self._tokenizer(rendered, add_special_tokens=False)["input_ids"]
        return list(ids)

    def _refuse_unfit(self, generation: Generation, prompt_tokens: int) -> None:
        if prompt_tokens + generation.max_tokens <= self._context and prompt_tokens:
            return
        field = "messages" if generation.messages else "prompt"
        if not prompt_tokens:
            raise InvalidRequest(f"{field} has no tokens; send some text", field=field)
        if prompt_tokens < self._context:
            field = "sampling.max_tokens"
        raise InvalidRequest(
            f"the prompt has {prompt_tokens} tokens and max_tokens is {generation.max_tokens}; "
            f"{self._model.name} has a context of {self._context}: "
            "shorten the prompt or lower sampling.max_tokens",
            code=Code.ERROR_CODE_CONTEXT_LENGTH_EXCEEDED,
            field=field,
        )

    def _sampling(self, generation: Generation) -> Any:
        from vllm.sampling_params import RequestOutputKind, SamplingParams, StructuredOutputsParams

        schema = generation.schema
        return SamplingParams(
            max_tokens=generation.max_tokens,
            temperature=generation.temperature,
            top_p=generation.top_p,
            top_k=generation.top_k,
            presence_penalty=generation.presence_penalty,
            frequency_penalty=generation.frequency_penalty,
            stop=list(generation.stop),
            # A seed makes vLLM draw each request apart, which greedy requests do not need.
            seed=generation.seed if generation.temperature > 0 else None,
            logprobs=0,
            flat_logprobs=True,
            structured_outputs=StructuredOutputsParams(json=dict(schema)) if schema else None,
            output_kind=(
                RequestOutputKind.DELTA if generation.stream else RequestOutputKind.FINAL_ONLY
            ),
        )


_COUNTERS = ("vllm:generation_tokens_total", "vllm:prompt_tokens_total")


def _counted_tokens() -> float:
    """Tokens that vLLM has read and drawn in this process, by its own metrics."""
    registry = REGISTRY.restricted_registry(_COUNTERS)
    return sum(
        sample.value
        for metric in registry.collect()
        for sample in metric.samples
        if sample.name in _COUNTERS
    )


_FINISH = {"stop": Finish.STOP, "length": Finish.LENGTH, "abort": Finish.CANCELLED}


def _prompt(generation: Generation, tokens: Sequence[int]) -> Any:
    from vllm.inputs import TokensPrompt

    # One tenant's timing must not tell what another asked, nor an adapter's version answer from
    # what another computed; the length makes each pair of words one salt only.
    salt, adapter = generation.cache_salt, generation.adapter
    if salt or adapter:
        return TokensPrompt(prompt_token_ids=tokens, cache_salt=f"{len(salt)}:{salt}:{adapter}")
    return TokensPrompt(prompt_token_ids=tokens)


def _first_token_s(output: Any, measured_s: float) -> float:
    metrics = output.metrics
    return float(metrics.first_token_latency) if metrics is not None else measured_s


async def _resolved(value: Any) -> Any:
    return await value if asyncio.iscoroutine(value) else value
