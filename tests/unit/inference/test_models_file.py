"""The declared base models: what is taken, and what errors say."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from penstock.settings import SettingsError
from penstock_inference.engines.models import (
    ModelsError,
    Replicas,
    ScriptedModel,
    UpstreamModel,
    VllmModel,
    parse_models,
    read_models,
)
from penstock_inference.settings import InferenceSettings
from penstock_inference.supervision import DeployError, Supervision

ROOT = Path(__file__).parents[3]
HOSTED = {"name": "hosted", "kind": "upstream", "base_url": "https://h/v1/", "model": "large"}


def write(path: Path, text: str) -> Path:
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return path


def test_a_file_of_every_kind(tmp_path: Path) -> None:
    path = write(
        tmp_path / "models.yaml",
        """
        models:
          - {name: a, kind: vllm, path: some/where, replicas: {min: 1, max: 4}, gpus: 0.5}
          - {name: b, kind: scripted, replicas: 3}
          - name: c
            kind: upstream
            base_url: https://api.example.com/v1/
            model: large
            api_key_env: LARGE_KEY
            requests_per_minute: 60
        """,
    )
    a, b, c = read_models(path)
    assert isinstance(a, VllmModel)
    assert isinstance(b, ScriptedModel)
    assert isinstance(c, UpstreamModel)
    assert (a.replicas, b.replicas) == (Replicas(min=1, max=4), Replicas(min=3, max=3))
    assert c.base_url == "https://api.example.com/v1"
    assert c.cpus == 0


@pytest.mark.parametrize(
    ("entries", "line"),
    [
        ([], "models: empty; declare one at least"),
        (
            [{"name": "a", "kind": "vllm", "pth": "x"}],
            "entry 1 (a), path: missing; A Hugging Face model's directory.",
        ),
        (
            [{"name": "a", "kind": "vllm", "path": "x", "max_runing": 3}],
            "entry 1 (a), max_runing: not known for kind vllm; did you mean max_running?",
        ),
        (
            [HOSTED, {"name": "a b", "kind": "scripted"}],
            "entry 2 (a b), name: String should match pattern",
        ),
        (
            [{"name": "a", "kind": "llamacpp"}],
            "entry 1 (a), kind: 'llamacpp' is none: write one of vllm, scripted, upstream",
        ),
        (
            [{"name": "a", "kind": "scripted", "replicas": {"min": 3, "max": 2}}],
            "entry 1 (a), replicas: min 3 is above max 2: lower it",
        ),
        ([HOSTED, HOSTED], "hosted: two entries have this name: rename one"),
        ([HOSTED | {"base_url": "api"}], "base_url: not an address: write https://host/v1"),
        (
            [HOSTED | {"api_key_env": "A", "api_key_file": "b"}],
            "api_key_env and api_key_file are both set: keep one",
        ),
        ([HOSTED | {"api_key_env": "PENSTOCK_KEY"}], "choose another name"),
        (["a"], "entry 1, not a mapping"),
    ],
)
def test_an_error_names_entry_field_and_remedy(entries: list[object], line: str) -> None:
    with pytest.raises(ModelsError) as raised:
        parse_models({"models": entries})
    assert line in str(raised.value)


@pytest.mark.parametrize("key", ["sk-secret-123", "secret with spaces"])
@pytest.mark.parametrize("field", ["api_key_env", "base_url", "api_key", "timeout_s"])
def test_a_key_in_the_wrong_place_is_not_shown(field: str, key: str) -> None:
    with pytest.raises(ModelsError) as raised:
        parse_models(
            {"models": [HOSTED | {field: f"https://u:{key}@h" if "url" in field else key}]}
        )
    assert "secret" not in str(raised.value)


def test_broken_yaml_is_located_without_its_text(tmp_path: Path) -> None:
    path = write(tmp_path / "models.yaml", "models:\n  - {api_key: secret")
    with pytest.raises(ModelsError, match=r"models\.yaml is no YAML: line 2") as raised:
        read_models(path)
    assert "secret" not in str(raised.value)


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(ModelsError, match=r"none\.yaml: No such file"):
        read_models(tmp_path / "none.yaml")


def test_keys_come_from_variables_and_files(tmp_path: Path) -> None:
    (by_env,) = parse_models({"models": [HOSTED | {"api_key_env": "LARGE_KEY"}]})
    assert isinstance(by_env, UpstreamModel)
    key = by_env.api_key({"LARGE_KEY": " sk-1\n"})
    assert key is not None
    assert key.get_secret_value() == "sk-1"
    assert "sk-1" not in repr(key)
    assert by_env.problems({}) == [
        "api_key: variable LARGE_KEY holds no key: put the upstream's key there"
    ]
    path = write(tmp_path / "key", "sk-2\n")
    (by_file,) = parse_models({"models": [HOSTED | {"api_key_file": str(path)}]})
    assert isinstance(by_file, UpstreamModel)
    assert by_file.problems({}) == []
    path.unlink()
    assert by_file.problems({}) == [f"api_key_file: {path}: No such file or directory"]


def test_without_a_file_the_settings_make_a_list_of_one() -> None:
    (model,) = InferenceSettings.load({}, engine="scripted", engine_replicas=2).base_models()
    assert model == ScriptedModel(name="triage", replicas=Replicas(min=2, max=2))
    (vllm,) = InferenceSettings.load({}, model="m", eager=True, max_running=7).base_models()
    assert vllm == VllmModel(name="triage", path="m", eager=True, max_running=7)


def test_one_model_that_lacks_something_leaves_the_others(tmp_path: Path) -> None:
    path = write(
        tmp_path / "models.yaml",
        """
        models:
          - {name: a, kind: vllm, path: nowhere}
          - {name: b, kind: scripted}
        """,
    )
    settings = InferenceSettings.load({}, models=str(path))
    problem = "path: nowhere is no Hugging Face model directory: it has no config.json"
    assert settings.check_models() == {"a": [problem]}
    assert settings.describe_models() == [f"a: vllm, {problem}", "b: scripted, ready to start"]
    with pytest.raises(SettingsError, match="nowhere is no Hugging Face model directory"):
        InferenceSettings.load({}, model="nowhere").check_models()


def test_a_failed_model_is_tried_again_later_and_later() -> None:
    supervision = Supervision(["a", "b"], "pumps")
    assert supervision.look({}, ["b", "pumps"], 0) == []
    again = [t for t in range(1, 400) if supervision.look({"a": "why"}, ["b", "pumps"], t)]
    assert again == [31, 92, 213]
    assert supervision.look({}, ["a", "b", "pumps"], 400) == []
    assert supervision.look({"a": "why"}, ["b"], 401) == []
    assert supervision.look({"a": "why"}, ["b"], 431) == ["a"]


def test_nothing_is_waited_for_where_nothing_can_serve() -> None:
    with pytest.raises(DeployError, match="b: why"):
        Supervision(["a", "b"], "pumps").look({"a": "why", "b": "why"}, ["pumps"], 0)
    with pytest.raises(DeployError, match="pumps: no group"):
        Supervision(["a"], "pumps").look({"pumps": "no group"}, ["a"], 0)
    once_served = Supervision(["a"], "pumps")
    once_served.look({}, ["a"], 0)
    assert once_served.look({"a": "why"}, ["pumps"], 1) == []
