"""The adapters of one vLLM engine: added, probed and removed while it generates.

vLLM names traps that this module goes around: a name that comes back serves prefix blocks of the
old weights (vllm#42125), `load_inplace` reads the files at every step (#36373), and an adapter that
is evicted to make room is read from disk again in the middle of a batch, where a missing file ends
the engine.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from penstock.telemetry import logger
from penstock_inference.errors import AdapterUnusable, EngineLost
from penstock_inference.generation import Adapter

__all__ = ["VllmAdapters", "kept_rank", "write_idle_adapter"]

log = logger(__name__)

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # those that vLLM has kernels for
FIRST_ID = 1001  # vLLM's own dummies begin at 1
LOAD_S = 120.0
WARM_UP = "penstock-warm-up"
# Where architectures have their attention's input; one module suffices to compile.
_ATTENTION = ("q_proj", "qkv_proj", "query_key_value", "c_attn", "Wqkv")


class VllmAdapters:
    """The adapters of one AsyncLLM.

    Args:
        llm: vLLM's AsyncLLM, made with `enable_lora`.
        capacity: Adapters loaded at a time; vLLM would evict above it.
        probe: Generates a token through a LoRARequest; returns its log-probability.
    """

    def __init__(
        self, llm: Any, *, capacity: int, probe: Callable[[Any], Awaitable[float]]
    ) -> None:
        self._llm = llm
        self._capacity = capacity
        self._probe = probe
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
        if self._digests.get(adapter.name, adapter.digest) != adapter.digest:
            raise AdapterUnusable(
                f"{adapter.name} came back with other weights; caches and answers go by the name: "
                "give each version its own"
            )
        if adapter.name in self._requests:
            return
        if len(self._requests) >= self._capacity:
            raise AdapterUnusable(
                f"{self._capacity} adapters are loaded: raise max_cpu_loras or withdraw one"
            )
        self._digests[adapter.name] = adapter.digest
        self._requests[adapter.name] = await self._add(adapter.name, adapter.path)

    async def unload(self, name: str) -> None:
        """See `AdapterHost.unload_adapter`."""
        request = self._requests.pop(name, None)  # first, so that no more work comes
        if request is not None:
            await self._remove(request)

    async def warm_up(self, model: str) -> None:
        """Answers once through an adapter of zeros: what compiles, compiles now."""
        with tempfile.TemporaryDirectory(prefix=WARM_UP) as directory:
            try:
                await asyncio.to_thread(write_idle_adapter, model, Path(directory))
                request = await self._add(WARM_UP, Path(directory))
            except (AdapterUnusable, OSError, ValueError) as error:
                log.warning("no warm-up: the first adapter's request waits", reason=str(error))
                return
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


def kept_rank(rank: int) -> int:
    """The least rank of those that vLLM knows which holds adapters of a rank."""
    return next(known for known in RANKS if known >= rank)


def write_idle_adapter(model: str, directory: Path) -> None:
    """Writes an adapter that changes nothing, for one attention module of a model.

    Raises:
        AdapterUnusable: The model has no module that is known to take one.
        OSError, ValueError: The model's configuration cannot be read.
    """
    import torch
    from safetensors.torch import save_file
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        shape = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model))
    for name, module in shape.named_modules():
        target = name.rpartition(".")[2]
        if target in _ATTENTION and isinstance(module, torch.nn.Linear):
            break
    else:
        raise AdapterUnusable(f"{model} has none of the modules {', '.join(_ATTENTION)}")
    weights = f"base_model.model.{name}.lora"
    save_file(
        {
            f"{weights}_A.weight": torch.zeros(1, module.in_features),
            f"{weights}_B.weight": torch.zeros(module.out_features, 1),
        },
        directory / "adapter_model.safetensors",
    )
    config = {"peft_type": "LORA", "r": 1, "lora_alpha": 1, "target_modules": [target]}
    (directory / "adapter_config.json").write_text(json.dumps(config))
