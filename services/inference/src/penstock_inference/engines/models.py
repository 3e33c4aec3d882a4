"""The base models that are served side by side: a YAML file, or one model from the settings.

models:
  - name: triage
    kind: vllm
    path: examples/triage/model
  - name: hosted
    kind: upstream
    base_url: https://api.example.com/v1
    model: large-2
    api_key_env: LARGE_API_KEY
    requests_per_minute: 500
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from penstock_inference.engines.recording import Recording, RecordingError

__all__ = [
    "Model",
    "ModelsError",
    "Replicas",
    "ScriptedModel",
    "UpstreamModel",
    "VllmModel",
    "parse_models",
    "read_models",
    "unready",
]


class ModelsError(Exception):
    """The declared models cannot be used; a line per error, which names entry, field and remedy."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Replicas(_Strict):
    """How many engines a model has: a number, or the bounds between which work decides."""

    min: int = Field(1, ge=1, description="Always there.")
    max: int = Field(1, ge=1, description="Under load.")

    @model_validator(mode="before")
    @classmethod
    def _from_number(cls, value: Any) -> Any:
        return {"min": value, "max": value} if isinstance(value, int) else value

    @model_validator(mode="after")
    def _ordered(self) -> Replicas:
        if self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}: lower it")
        return self


class _Model(_Strict):
    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$",
        description="What variants of routes name as their base_model.",
    )
    replicas: Replicas = Field(
        Replicas(min=1, max=1), description="Engine replicas: a number, or min and max."
    )
    cpus: float = Field(1, ge=0, description="CPUs that Ray reserves for a replica.")
    gpus: float = Field(0, ge=0, description="GPUs that Ray reserves for a replica.")
    max_running: int = Field(128, ge=1, description="Generations that a replica runs at a time.")

    def problems(self, environment: Mapping[str, str]) -> list[str]:
        """What this machine lacks to serve it; cheap, before anything slow begins."""
        del environment
        return []


class VllmModel(_Model):
    """A model's directory, served by vLLM here."""

    kind: Literal["vllm"] = "vllm"
    path: str = Field(min_length=1, description="A Hugging Face model's directory.")
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
    adapters_dir: str = Field(
        "", description="Where its LoRA adapters lie, a sub-directory for each; empty serves none."
    )
    adapter_keys: tuple[str, ...] = Field(
        (),
        description="Public keys, PEM files: an adapter must be signed by one of them; none asks "
        "for no signature.",
    )
    max_loras: int = Field(4, ge=1, description="Adapters that one batch may mix.")
    max_lora_rank: int = Field(
        16, ge=1, le=512, description="The highest rank of an adapter; memory is kept for it."
    )
    max_cpu_loras: int = Field(8, ge=1, description="Adapters loaded at a time; >= max_loras.")

    def problems(self, environment: Mapping[str, str]) -> list[str]:
        """See `_Model`."""
        del environment
        found = [
            f"adapter_keys: {key} is not there; name the signer's public key"
            for key in self.adapter_keys
            if not Path(key).is_file()
        ]
        if not (Path(self.path) / "config.json").is_file():
            found.append(
                f"path: {self.path} is no Hugging Face model directory: it has no config.json"
            )
        return found


class ScriptedModel(_Model):
    """A script with fixed times, for tests and for measuring what is around it."""

    kind: Literal["scripted"] = "scripted"
    first_token_s: float = Field(0.05, ge=0, description="Time to the first token.")
    token_s: float = Field(0.0, ge=0, description="Time per further token.")
    tokens: int = Field(16, ge=1, description="Tokens per answer at most.")
    max_running: int = Field(
        0, ge=0, description="Generations that a replica runs at a time; 0: as many as come."
    )
    diverge: float = Field(
        0, ge=0, le=1, description="Share of the runs begun again that say something else."
    )
    poison: str = Field(
        "", description="A prompt that holds this text ends the process; empty: none does."
    )
    recording: str = Field(
        "", description="Answers to give, a JSON Lines file; empty: seeded words to all."
    )

    def problems(self, environment: Mapping[str, str]) -> list[str]:
        """See `_Model`."""
        del environment
        if self.recording:
            try:
                Recording(Path(self.recording))
            except RecordingError as error:
                return [f"recording: {error}"]
        return []


class UpstreamModel(_Model):
    """A model that somebody else serves behind an OpenAI-compatible HTTP API."""

    kind: Literal["upstream"] = "upstream"
    cpus: float = Field(0, ge=0, description="CPUs that Ray reserves for a replica.")
    base_url: str = Field(description="Up to and with the API's version: https://host/v1")
    model: str = Field(min_length=1, description="The model's id at the upstream.")
    adapters: Mapping[str, str] = Field(
        default_factory=dict,
        description="Model ids at the upstream of its adapters, by the names that variants use.",
    )
    api_key_env: str = Field("", description="The environment variable that holds the key.")
    api_key_file: str = Field("", description="The file that holds the key.")
    dialect: Literal["openai", "vllm"] = Field(
        "openai", description="vllm: it knows top_k, cache salts and usage per chunk."
    )
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = Field(
        "max_tokens", description="How chat requests name the bound of an answer."
    )
    prompts: Literal["completions", "chat"] = Field(
        "completions", description="Where a prompt goes; chat makes one user turn of it."
    )
    omit: Sequence[
        Literal[
            "temperature",
            "top_p",
            "presence_penalty",
            "frequency_penalty",
            "seed",
            "logprobs",
            "stream_options",
        ]
    ] = Field((), description="Fields that it refuses: requests go without them.")
    connect_s: float = Field(5, gt=0, description="Bound on a connection's making.")
    idle_s: float = Field(60, gt=0, description="Bound on the silence within a stream.")
    timeout_s: float = Field(600, gt=0, description="Bound on one attempt.")
    retries: int = Field(3, ge=0, le=20, description="Attempts after the first, before any text.")
    retry_s: float = Field(0.5, gt=0, description="Wait before the first retry; then doubled.")
    retry_max_s: float = Field(30, gt=0, description="Longest wait, the upstream's own word too.")
    requests_per_minute: float | None = Field(
        None, gt=0, description="Over all replicas; unset sets no limit."
    )
    tokens_per_minute: float | None = Field(
        None, gt=0, description="Prompt and answer, over all replicas; unset sets no limit."
    )

    @field_validator("base_url")
    @classmethod
    def _plain_url(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("not an address: write https://host/v1")
        if parts.username or parts.password or parts.query:
            # The address shows in logs.
            raise ValueError("holds more than an address: the key goes to api_key_env")
        return url.rstrip("/")

    @field_validator("api_key_env")
    @classmethod
    def _own_variable(cls, name: str) -> str:
        if name.upper().startswith("PENSTOCK_"):
            raise ValueError("begins with PENSTOCK_, which is for settings: choose another name")
        if name and not (name.isidentifier() and name.isascii()):
            # The value may be the key itself, so nothing of it is said.
            raise ValueError("is no variable's name: put the key into a variable, its name here")
        return name

    @model_validator(mode="after")
    def _one_key(self) -> UpstreamModel:
        if self.api_key_env and self.api_key_file:
            raise ValueError("api_key_env and api_key_file are both set: keep one")
        return self

    def api_key(self, environment: Mapping[str, str]) -> SecretStr | None:
        """The key, or None where the upstream wants none.

        Raises:
            ModelsError: It is not where the entry says.
        """
        key = ""
        if self.api_key_env:
            key = environment.get(self.api_key_env, "").strip()
        elif self.api_key_file:
            try:
                key = Path(self.api_key_file).read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                reason = getattr(error, "strerror", None) or "not text"
                raise ModelsError(f"api_key_file: {self.api_key_file}: {reason}") from None
        else:
            return None
        if not key or not key.isascii() or not key.isprintable():
            where = f"variable {self.api_key_env}" if self.api_key_env else self.api_key_file
            raise ModelsError(f"api_key: {where} holds no key: put the upstream's key there")
        return SecretStr(key)

    def problems(self, environment: Mapping[str, str]) -> list[str]:
        """See `_Model`."""
        try:
            self.api_key(environment)
        except ModelsError as error:
            return [str(error)]
        return []


Model = VllmModel | ScriptedModel | UpstreamModel

_KINDS: dict[str, type[_Model]] = {
    "vllm": VllmModel,
    "scripted": ScriptedModel,
    "upstream": UpstreamModel,
}
_ANY: TypeAdapter[Model] = TypeAdapter(Annotated[Model, Field(discriminator="kind")])


def read_models(path: Path) -> tuple[Model, ...]:
    """The models that a file declares.

    Raises:
        ModelsError: It cannot be read, or declares what cannot be.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelsError(f"{path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ModelsError(f"{path} is no YAML: {_place(error)}") from error
    try:
        return parse_models(document)
    except ModelsError as error:
        raise ModelsError(
            "\n".join(f"{path}: {line}" for line in str(error).splitlines())
        ) from None


def parse_models(document: Any) -> tuple[Model, ...]:
    """The models of a document as YAML gives it, in its order.

    Raises:
        ModelsError: It declares what cannot be; all errors, a line each.
    """
    if not isinstance(document, dict) or not isinstance(document.get("models"), list):
        raise ModelsError("no list `models`: write `models:` and an entry per model under it")
    errors = [
        f"{key}: not known; only `models` stands here" for key in document.keys() - {"models"}
    ]
    if not document["models"]:
        errors.append("models: empty; declare one at least")
    models: list[Model] = []
    for number, entry in enumerate(document["models"], 1):
        try:
            models.append(_parse_entry(entry))
        except ModelsError as error:
            where = f"entry {number}{_named(entry)}"
            errors += [f"{where}, {line}" for line in str(error).splitlines()]
    errors += [f"{name}: two entries have this name: rename one" for name in _twice(models)]
    if errors:
        raise ModelsError("\n".join(errors))
    return tuple(models)


def unready(models: Iterable[Model]) -> dict[str, list[str]]:
    """What this machine lacks, by the names of the models that lack something."""
    found = {model.name: model.problems(os.environ) for model in models}
    return {name: problems for name, problems in found.items() if problems}


def _parse_entry(entry: Any) -> Model:
    if not isinstance(entry, dict):
        raise ModelsError("not a mapping: write `name: ...`, `kind: ...` and so on")
    kind = entry.get("kind")
    if kind not in _KINDS:
        raise ModelsError(f"kind: {kind!r} is none: write one of {', '.join(_KINDS)}")
    try:
        return _ANY.validate_python(entry)
    except ValidationError as error:
        fields = _KINDS[kind].model_fields
        raise ModelsError(
            "\n".join(_line(each, entry, fields) for each in error.errors())
        ) from None


def _line(error: Any, entry: Mapping[str, Any], fields: Mapping[str, Any]) -> str:
    """One of pydantic's errors as a line; never with the value, which may be a key."""
    path = [str(part) for part in error["loc"][1:]]
    field = ".".join(path) or str(entry["kind"])
    if error["type"] == "extra_forbidden":
        close = difflib.get_close_matches(path[-1], fields, n=1)
        remedy = f"did you mean {close[0]}?" if close else "remove it"
        return f"{field}: not known for kind {entry['kind']}; {remedy}"
    if error["type"] == "missing":
        return f"{field}: missing; {fields[path[0]].description}"
    return f"{field}: {error['msg'].removeprefix('Value error, ')}"


def _named(entry: Any) -> str:
    name = entry.get("name") if isinstance(entry, dict) else None
    return f" ({name})" if isinstance(name, str) else ""


def _twice(models: Sequence[Model]) -> list[str]:
    names = [model.name for model in models]
    return sorted({name for name in names if names.count(name) > 1})


def _place(error: yaml.YAMLError | UnicodeDecodeError) -> str:
    """What is wrong and where, without the text around it: a key may stand there."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        return f"line {error.problem_mark.line + 1}: {error.problem}"
    return type(error).__name__
