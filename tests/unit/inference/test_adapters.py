"""Adapters: what is on disk, what is to be loaded, and what becomes of failures."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.manifest import write_manifest
from penstock.signing import PublicKeys, SigningKey
from penstock_inference.adapters.keeper import AdapterKeeper, plan
from penstock_inference.adapters.store import AdapterStore
from penstock_inference.engines.errors import AdapterUnusable, EngineLost
from penstock_inference.engines.generation import Adapter

NAMES = st.sets(st.sampled_from("abcdef"))


@given(NAMES, NAMES, NAMES)
def test_a_plan_leads_to_what_is_desired_and_takes_nothing_that_is_used(
    desired: set[str], loaded: set[str], in_use: set[str]
) -> None:
    load, unload = plan(desired, loaded, in_use)
    after = loaded.difference(unload).union(load)
    assert desired <= after <= desired | in_use | loaded
    assert not in_use.intersection(unload)
    assert not loaded.intersection(load)
    assert plan(desired, after, in_use) == ([], [])


def saved(directory: Path, name: str = "v1", **config: object) -> Path:
    path = directory / name
    path.mkdir()
    (path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 8, **config}))
    (path / "adapter_model.safetensors").write_bytes(b"weights")
    return path


def test_an_adapter_is_found_by_its_directory(tmp_path: Path) -> None:
    path = saved(tmp_path)
    digest = write_manifest(path)
    assert AdapterStore(tmp_path).find("v1") == Adapter("v1", path, digest)


@pytest.mark.parametrize("name", ["", ".", "..", "../v1", "a/b", "/etc", ".hidden", "a\0b", "v1 "])
def test_a_name_is_no_path(tmp_path: Path, name: str) -> None:
    saved(tmp_path)
    with pytest.raises(AdapterUnusable, match="no adapter's name"):
        AdapterStore(tmp_path).find(name)


def test_a_link_out_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "adapters").mkdir()
    (tmp_path / "adapters" / "v1").symlink_to(saved(tmp_path, "elsewhere"))
    with pytest.raises(AdapterUnusable, match="leads out"):
        AdapterStore(tmp_path / "adapters").find("v1")


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(AdapterUnusable, match="no directory"):
        AdapterStore(tmp_path).find("v1")
    path = saved(tmp_path)
    (path / "adapter_model.safetensors").rename(path / "adapter_model.bin")
    with pytest.raises(AdapterUnusable, match=r"no adapter_model\.safetensors"):
        AdapterStore(tmp_path).find("v1")


@pytest.mark.parametrize("text", ["{", "[]", '{"peft_type": "IA3"}'])
def test_what_is_no_lora_is_refused(tmp_path: Path, text: str) -> None:
    (saved(tmp_path) / "adapter_config.json").write_text(text)
    with pytest.raises(AdapterUnusable, match=r"adapter_config|cannot be read"):
        AdapterStore(tmp_path).find("v1")


def test_weights_that_were_changed_after_the_manifest_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path)
    write_manifest(path)
    (path / "adapter_model.safetensors").write_bytes(b"Weights")
    with pytest.raises(AdapterUnusable, match=r"adapter_model\.safetensors differs"):
        AdapterStore(tmp_path).find("v1")


def test_where_keys_are_named_only_what_they_signed_is_loaded(tmp_path: Path) -> None:
    path = saved(tmp_path)
    signer = SigningKey.load_or_make(tmp_path / "key.pem")
    store = AdapterStore(tmp_path, PublicKeys.load([tmp_path / "key.pem.pub"]))
    with pytest.raises(AdapterUnusable, match="must be signed"):
        store.find("v1")
    digest = write_manifest(path)
    with pytest.raises(AdapterUnusable, match="is not signed"):
        store.find("v1")
    write_manifest(path, SigningKey.load_or_make(tmp_path / "other.pem"))
    with pytest.raises(AdapterUnusable, match="nobody who is known"):
        store.find("v1")
    write_manifest(path, signer)
    assert store.find("v1") == Adapter("v1", path, digest)
    # The same files under another's name are not what was signed.
    path.rename(tmp_path / "v2")
    with pytest.raises(AdapterUnusable, match="not of these files under this name"):
        store.find("v2")


class Host:
    """Keeps what it is given; refuses the names it was told to."""

    def __init__(self) -> None:
        self.held: set[str] = set()
        self.refused: dict[str, Exception] = {}

    @property
    def adapters(self) -> Collection[str]:
        return self.held

    async def load_adapter(self, adapter: Adapter) -> None:
        if adapter.name in self.refused:
            raise self.refused[adapter.name]
        self.held.add(adapter.name)

    async def unload_adapter(self, name: str) -> None:
        self.held.discard(name)


class World:
    """A keeper whose routes, work and clock the test sets."""

    def __init__(self) -> None:
        self.host = Host()
        self.desired: set[str] = set()
        self.in_use: set[str] = set()
        self.now = 1000.0
        self.searched: list[str] = []
        self.keeper = self.kept()

    def kept(self) -> AdapterKeeper:
        return AdapterKeeper(
            self.host,
            self.find,
            desired=lambda: self.desired,
            in_use=lambda: self.in_use,
            idle_s=60,
            clock=lambda: self.now,
        )

    def find(self, name: str) -> Adapter:
        self.searched.append(name)
        return Adapter(name, Path(name), "digest")


async def test_what_routes_name_is_loaded_and_again_after_a_restart() -> None:
    world = World()
    world.desired = {"v2", "v1"}
    await world.keeper.step()
    assert world.keeper.loaded == ["v1", "v2"]
    world.host.held.clear()
    world.keeper = world.kept()
    await world.keeper.step()
    assert world.keeper.loaded == ["v1", "v2"]


async def test_an_adapter_goes_when_neither_routes_nor_work_needed_it_for_a_while() -> None:
    world = World()
    world.desired = {"v1"}
    await world.keeper.step()
    world.desired, world.in_use = set(), {"v1"}
    world.now += 100
    await world.keeper.step()
    world.in_use = set()
    world.now += 59
    await world.keeper.step()
    assert world.keeper.loaded == ["v1"]
    world.now += 2
    await world.keeper.step()
    assert world.keeper.loaded == []


async def test_a_failure_is_told_and_tried_again_more_and_more_seldom() -> None:
    world = World()
    world.desired = {"bad", "good"}
    world.host.refused["bad"] = AdapterUnusable("rank 64 is too high")
    for _ in range(300):
        await world.keeper.step()
        world.now += 1
    assert world.keeper.loaded == ["good"]
    assert world.keeper.failures == {"bad": "rank 64 is too high"}
    assert world.searched.count("bad") == 10  # at 0, 1, 3, 7, 15, 31, 63, 123, 183, 243
    world.host.refused.clear()
    world.now += 60
    await world.keeper.step()
    assert (world.keeper.loaded, world.keeper.failures) == (["bad", "good"], {})


async def test_a_failure_is_forgotten_with_its_route() -> None:
    world = World()
    world.desired = {"bad"}
    world.host.refused["bad"] = RuntimeError("unforeseen")
    await world.keeper.step()
    assert world.keeper.failures == {"bad": "unforeseen: RuntimeError"}
    world.desired = set()
    await world.keeper.step()
    assert world.keeper.failures == {}


async def test_a_lost_engine_ends_the_keeping() -> None:
    world = World()
    world.desired = {"v1"}
    world.host.refused["v1"] = EngineLost("gone")
    await world.keeper.run()
    assert world.keeper.loaded == []
