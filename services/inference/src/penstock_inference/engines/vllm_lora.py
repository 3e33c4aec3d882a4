"""The adapters of one vLLM engine: added, probed and removed while it generates.

vLLM has traps that this module goes around:

- A name that comes back serves prefix blocks of the old weights (vllm#42125).
- `load_inplace` reads the files at every step (#36373).
- An adapter that is evicted to make room is read from disk again in the middle of a batch, where a
  missing file ends the engine.
- On a CPU, requests of the base model that share a batch with an adapter's get the weights of the
  last slot added (#48421, open in 0.32): that slot stays empty here.
- Weights that are narrower than the model's are padded with zeros rather than refused.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from penstock.telemetry import logger
from penstock_inference.engines.errors import AdapterUnusable, EngineLost
from penstock_inference.engines.generation import Adapter

__all__ = ["VllmAdapters", "lora_arguments", "unfit_weights", "widths_of"]

log = logger(__name__)

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # those that vLLM has kernels for
FIRST_ID = 1001  # vLLM's own dummies begin at 1
LOAD_S = 120.0
WARM_UP = "penstock-warm-up"
# Where architectures have their attention's input; one module suffices to compile.
_ATTENTION = ("q_proj", "qkv_proj", "query_key_value", "c_attn", "Wqkv")
_WEIGHT = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")

# Inputs and outputs of a model's linear modules, by their names.
Widths = Mapping[str, tuple[int, int]]


class VllmAdapters:
    """The adapters of one AsyncLLM.

    Args:
        llm: vLLM's AsyncLLM, made with `lora_arguments`.
        capacity: Adapters loaded at a time; vLLM would evict above it.
        widths: Of the model's modules, as far as they are known.
        probe: Generates a token through a LoRARequest; returns its log-probability.
    """

    def __init__(
        self,
        llm: Any,
        *,
        capacity: int,
        widths: Widths,
        probe: Callable[[Any], Awaitable[float]],
    ) -> None:
        self._llm = llm
        self._capacity = capacity
        self._widths = widths
        self._probe = probe
        self._one_at_a_time = asyncio.Lock()  # or two would take the last place
        self._ids = itertools.count(FIRST_ID)
        self._requests: dict[str, Any] = {}
        self._digests: dict[str, str] = {}

    @property
    def names(self) -> set[str]:
        """Those that were probed and work may be sent for."""
        return set(self._requests)

    def request(self, name: str) -> Any:
        """The LoRARequest of a loaded adapter; None for another name."""
        return self._requests.get(name)

    async def load(self, adapter: Adapter) -> None:
        """See `AdapterHost.load_adapter`."""
        async with self._one_at_a_time:
            if self._digests.get(adapter.name, adapter.digest) != adapter.digest:
                raise AdapterUnusable(
                    f"{adapter.name} came back with other weights; caches and answers go by the "
                    "name: give each version its own"
                )
            if adapter.name in self._requests:
                return
            if len(self._requests) >= self._capacity:
                raise AdapterUnusable(
                    f"{self._capacity} adapters are loaded: raise max_cpu_loras or withdraw one"
                )
            if unfit := await asyncio.to_thread(unfit_weights, adapter.path, self._widths):
                raise AdapterUnusable(f"{adapter.name} is not for this model: {unfit}")
            self._digests[adapter.name] = adapter.digest
            self._requests[adapter.name] = await self._add(adapter.name, adapter.path)

    async def unload(self, name: str) -> None:
        """See `AdapterHost.unload_adapter`."""
        request = self._requests.pop(name, None)  # first, so that no more work comes
        if request is not None:
            await self._remove(request)

    async def warm_up(self) -> None:
        """Answers once through an adapter of zeros: what compiles, compiles now."""
        module = next((n for n in self._widths if n.rpartition(".")[2] in _ATTENTION), None)
        if module is None:
            log.warning("no warm-up: the first request of an adapter waits for the compiler")
            return
        with tempfile.TemporaryDirectory(prefix=WARM_UP) as directory:
            _write_idle_adapter(Path(directory), module, *self._widths[module])
            request = await self._add(WARM_UP, Path(directory))
        await self._remove(request)

    async def forget_lost(self) -> None:
        """Takes off the list what vLLM says that it has no more."""
        listed = await self._llm.list_loras()
        for name, request in list(self._requests.items()):
            if request.lora_int_id not in listed:
                log.error("adapter vanished from the engine", adapter=name)
                del self._requests[name]

    async def _add(self, name: str, path: Path) -> Any:
        from vllm.lora.request import LoRARequest
        from vllm.v1.engine.exceptions import EngineDeadError

        request = LoRARequest(name, next(self._ids), str(path))
        try:
            await asyncio.wait_for(self._llm.add_lora(request), LOAD_S)
            drawn = await asyncio.wait_for(self._probe(request), LOAD_S)
            if drawn != drawn:  # NaN
                raise AdapterUnusable(f"{name} answers with NaN: its weights are broken")
        except EngineDeadError as error:
            raise EngineLost("vLLM's engine process died") from error
        except EngineLost:
            raise
        except BaseException as error:
            # A load that failed half-way is registered all the same.
            await self._remove(request)
            if isinstance(error, AdapterUnusable) or not isinstance(error, Exception):
                raise
            raise AdapterUnusable(f"vLLM cannot load {name}: {error!r}") from error
        return request

    async def _remove(self, request: Any) -> None:
        from vllm.v1.engine.exceptions import EngineDeadError

        try:
            await self._llm.remove_lora(request.lora_int_id)
        except EngineDeadError as error:
            raise EngineLost("vLLM's engine process died") from error


def lora_arguments(*, on_cpu: bool, mixed: int, loaded: int, rank: int) -> dict[str, Any]:
    """What vLLM is started with for a number of adapters mixed in a batch and loaded at a time."""
    loaded = max(mixed, loaded)
    # See the module's docstring for the slot more, which nothing ever fills: so that adapters are
    # never swapped between slots, each has its own.
    slots = loaded + 1 if on_cpu else mixed
    return {
        "enable_lora": True,
        "max_loras": slots,
        "max_cpu_loras": max(slots, loaded),
        "max_lora_rank": next(known for known in RANKS if known >= rank),
    }


def widths_of(model: str) -> Widths:
    """The widths of a model's linear modules; none where transformers cannot tell. Blocks."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        with torch.device("meta"):
            shape = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model))
    except (ValueError, OSError, KeyError) as error:
        log.warning("shapes of adapters are not compared with the model's", reason=str(error))
        return {}
    return {
        name: (module.in_features, module.out_features)
        for name, module in shape.named_modules()
        if isinstance(module, torch.nn.Linear)
    }


def unfit_weights(adapter: Path, widths: Widths) -> str:
    """The first of an adapter's weights whose shape is not the model's; empty for none. Blocks."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(adapter / "adapter_model.safetensors", framework="pt") as weights:
            shapes = {key: weights.get_slice(key).get_shape() for key in weights.keys()}  # noqa: SIM118
    except SafetensorError as error:
        return f"adapter_model.safetensors cannot be read: {error}"
    for key, shape in shapes.items():
        named = _WEIGHT.fullmatch(key)
        if named is None or named[1] not in widths:
            continue  # vLLM refuses the modules that it does not know
        width_in, width_out = widths[named[1]]
        found, wanted = (shape[1], width_in) if named[2] == "A" else (shape[0], width_out)
        if found != wanted:
            return f"{key} is {found} wide, the model {wanted}"
    return ""


def _write_idle_adapter(directory: Path, module: str, width_in: int, width_out: int) -> None:
    """Writes an adapter that changes nothing, for one module."""
    import torch
    from safetensors.torch import save_file

    weights = f"base_model.model.{module}.lora"
    save_file(
        {
            f"{weights}_A.weight": torch.zeros(1, width_in),
            f"{weights}_B.weight": torch.zeros(width_out, 1),
        },
        directory / "adapter_model.safetensors",
    )
    target = module.rpartition(".")[2]
    config = {"peft_type": "LORA", "r": 1, "lora_alpha": 1, "target_modules": [target]}
    (directory / "adapter_config.json").write_text(json.dumps(config))
