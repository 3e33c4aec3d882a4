"""The settings of inference, each declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic_settings import SettingsConfigDict

from penstock.settings import Settings, SettingsError
from penstock_inference.engines.models import (
    Model,
    ModelsError,
    Replicas,
    ScriptedModel,
    VllmModel,
    read_models,
    unready,
)

__all__ = ["InferenceSettings"]


class InferenceSettings(Settings):
    """What inference reads from the environment, under `PENSTOCK_INFERENCE_`."""

    model_config = SettingsConfigDict(env_prefix="PENSTOCK_INFERENCE_")

    host: str = Field("127.0.0.1", description="Address that metrics and engine streams bind.")
    metrics_port: int = Field(
        9111,
        ge=0,
        description="/metrics of the first pump; the n-th model's first engine has it 10 n above, "
        "further replicas follow. 0 serves none.",
    )
    models: str = Field(
        "",
        description="A YAML file of base models to serve side by side (docs/models.md); unset "
        "serves the one of ENGINE, MODEL, MODEL_NAME and what follows them, unread otherwise.",
    )
    engine: Literal["vllm", "scripted"] = Field(
        "vllm", description="What answers: vLLM, or a script with fixed times, for measuring."
    )
    model: str = Field("examples/triage/model", description="A Hugging Face model's directory.")
    model_name: str = Field("triage", description="The base model's name in routes.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="auto: bfloat16 where the processor has it, else float32."
    )
    eager: bool = Field(
        False, description="Run without compilation: starts sooner, answers slower."
    )
    max_model_len: int | None = Field(
        None, ge=16, description="Context in tokens; unset takes the model's own."
    )
    kv_cache_gib: float = Field(1, gt=0, description="KV cache of a CPU engine, in GiB.")
    gpu_memory_utilization: float = Field(
        0.9, gt=0, le=1, description="Share of a GPU's memory that vLLM takes."
    )
    max_running: int = Field(128, ge=1, description="Sequences that one engine runs at a time.")
    adapters_dir: str = Field(
        "", description="Where LoRA adapters lie, a sub-directory for each; empty serves none."
    )
    adapter_keys: str = Field(
        "",
        description="Public keys, PEM files, separated by commas: an adapter must be signed by "
        "one of them; empty asks for no signature.",
    )
    max_loras: int = Field(4, ge=1, description="Adapters that one batch may mix.")
    max_lora_rank: int = Field(
        16, ge=1, le=512, description="The highest rank of an adapter; memory is kept for it."
    )
    max_cpu_loras: int = Field(8, ge=1, description="Adapters loaded at a time; >= max_loras.")
    adapter_idle_s: float = Field(
        60, ge=0, description="An adapter that no route names is unloaded when idle for so long."
    )
    engine_replicas: int = Field(1, ge=1, description="Engine replicas; the fewest, if scaled.")
    engine_replicas_max: int = Field(
        0, ge=0, description="The most; between the two work decides (docs/scaling.md). 0: fixed."
    )
    engine_cpus: float = Field(1, ge=0, description="CPUs that Ray reserves for an engine.")
    engine_gpus: float = Field(0, ge=0, description="GPUs that Ray reserves for an engine.")
    scale_target: float = Field(
        1, gt=0, description="Work that a replica should have ahead, in multiples of max_running."
    )
    scale_tokens: int = Field(
        512, ge=1, description="Tokens that count as one request of that work, if it has more."
    )
    scale_up_after_s: float = Field(
        5, ge=0, description="How long there must be more work than that for another replica."
    )
    scale_down_after_s: float = Field(
        120, ge=0, description="How long there must be clearly less for one replica less."
    )
    pump_replicas: int = Field(1, ge=1, description="Pump replicas; at most the partitions.")
    max_tokens_in_flight: int = Field(
        1_000_000, ge=1, description="Tokens that a pump may have at engines at a time."
    )
    read_ahead_records: int = Field(
        20_000, ge=1, description="Requests that a pump holds, those at engines among them."
    )
    read_ahead_mib: int = Field(64, ge=1, description="The same in MiB of their records.")
    cache_mib: int = Field(
        64, ge=0, description="Answers that a pump keeps for the same question, in MiB; 0: none."
    )
    cache_ttl_s: float = Field(3600, gt=0, description="How long a kept answer stands.")
    semantic_cache_mib: int = Field(
        0, ge=0, description="The same for similar questions; above 0 it needs a threshold."
    )
    semantic_cache_threshold: float | None = Field(
        None,
        gt=0,
        le=1,
        validate_default=True,
        description="Least cosine of a similar question: `penstock cache calibrate` finds it.",
    )
    drain_s: float = Field(20, ge=0, description="What work under way may take at shutdown.")
    ray_address: str = Field("", description="A Ray cluster to join; empty starts one.")
    ray_temp_dir: str = Field("", description="Ray's own files; empty takes Ray's default.")
    object_store_mib: int = Field(100, ge=80, description="Ray's object store; hardly used.")
    scripted_first_token_s: float = Field(0.05, ge=0, description="Scripted: time to first token.")
    scripted_token_s: float = Field(0.0, ge=0, description="Scripted: time per further token.")
    scripted_tokens: int = Field(16, ge=1, description="Scripted: tokens per answer at most.")
    scripted_slots: int = Field(
        0, ge=0, description="Scripted: generations at a time; 0 takes as many as come."
    )
    scripted_diverge: float = Field(
        0, ge=0, le=1, description="Scripted: share of runs begun again that say something else."
    )
    scripted_poison: str = Field(
        "", description="Scripted: a prompt that holds this text kills the engine. Empty: none."
    )
    scripted_recording: str = Field(
        "", description="Scripted: answers to give, a JSON Lines file. Empty: seeded words to all."
    )

    @field_validator("engine_replicas_max")
    @classmethod
    def _ordered(cls, most: int, info: ValidationInfo) -> int:
        if 0 < most < info.data.get("engine_replicas", 1):
            raise ValueError("it must be 0, or at least PENSTOCK_INFERENCE_ENGINE_REPLICAS")
        return most

    @field_validator("semantic_cache_threshold")
    @classmethod
    def _calibrated(cls, threshold: float | None, info: ValidationInfo) -> float | None:
        # No default would be right: how alike is alike enough depends on what is asked.
        if threshold is None and info.data.get("semantic_cache_mib"):
            raise ValueError(
                "the semantic cache is on and needs it; find it with `penstock cache calibrate`"
            )
        return threshold

    def base_models(self) -> tuple[Model, ...]:
        """The models to serve: those of the file, or the one of these settings.

        Raises:
            SettingsError: The file cannot be read, or declares what cannot be.
        """
        if not self.models:
            return (self._only_model(),)
        try:
            return read_models(Path(self.models))
        except ModelsError as error:
            raise SettingsError(str(error)) from error

    def check_models(self) -> dict[str, list[str]]:
        """Looks whether there is what the models need, before anything slow begins.

        Returns:
            What is missing, by model; the others can be served without these.

        Raises:
            SettingsError: None of them can be served.
        """
        models = self.base_models()
        missing = unready(models)
        if len(missing) == len(models):
            raise SettingsError(
                "\n".join(f"{name}: {line}" for name, lines in missing.items() for line in lines)
            )
        return missing

    def describe_models(self) -> list[str]:
        """The models, a line each, with what they lack; for people.

        Raises:
            SettingsError: The file declares what cannot be, or none of them can be served.
        """
        missing = self.check_models()
        return [
            f"{model.name}: {model.kind}, {'; '.join(missing.get(model.name, ['ready to start']))}"
            for model in self.base_models()
        ]

    def _only_model(self) -> Model:
        shared: dict[str, Any] = {
            "name": self.model_name,
            "replicas": Replicas(
                min=self.engine_replicas, max=self.engine_replicas_max or self.engine_replicas
            ),
            "cpus": self.engine_cpus,
            "gpus": self.engine_gpus,
        }
        if self.engine == "scripted":
            return ScriptedModel(
                first_token_s=self.scripted_first_token_s,
                token_s=self.scripted_token_s,
                tokens=self.scripted_tokens,
                max_running=self.scripted_slots,
                diverge=self.scripted_diverge,
                poison=self.scripted_poison,
                recording=self.scripted_recording,
                **shared,
            )
        return VllmModel(
            path=self.model,
            dtype=self.dtype,
            eager=self.eager,
            max_model_len=self.max_model_len,
            kv_cache_gib=self.kv_cache_gib,
            gpu_memory_utilization=self.gpu_memory_utilization,
            max_running=self.max_running,
            adapters_dir=self.adapters_dir,
            adapter_keys=tuple(key.strip() for key in self.adapter_keys.split(",") if key.strip()),
            max_loras=self.max_loras,
            max_lora_rank=self.max_lora_rank,
            max_cpu_loras=self.max_cpu_loras,
            **shared,
        )
