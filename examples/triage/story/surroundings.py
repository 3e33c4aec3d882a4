"""What the stack of a story has to be like: adapters, policies, and models of their own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from examples.triage.story.plot import Plot
from examples.triage.story.recorded import recording
from penstock_native.settings import ROOT

__all__ = ["surroundings"]

COMPOSE = ROOT / "compose"


def surroundings(plots: Sequence[Plot], home: Path) -> dict[str, str]:
    """What the stack's services need for stories that are told at once.

    Each story has a model of its own, and all models one base model with its engine.

    Args:
        plots: The stories; they differ in model and seed alone.
        home: A directory for adapters, keys and what is written for the services.
    """
    plot = plots[0]
    adapters = home / "adapters"
    adapters.mkdir(parents=True, exist_ok=True)
    policy = home / "retrain.yaml"
    policy.write_text(yaml.safe_dump(plot.policy), encoding="utf-8")
    return {
        **(_played_back(plots, plot.adapter, home) if plot.adapter else {}),
        "PENSTOCK_NATIVE_ROUTES": str(_written(home / "routes.json", _routes(plots))),
        "PENSTOCK_COST_PRICES": str(_written(home / "prices.json", _prices(plots))),
        "PENSTOCK_INFERENCE_ADAPTERS_DIR": str(adapters),
        "PENSTOCK_INFERENCE_MAX_LORA_RANK": "8",
        "PENSTOCK_INFERENCE_MAX_LORAS": "1",
        "PENSTOCK_INFERENCE_MAX_RUNNING": "32",
        "PENSTOCK_RETRAIN_SIGNING_KEY": str(home / "keys" / "registry.pem"),
        "PENSTOCK_RETRAIN_POLICY": str(policy),
        "PENSTOCK_RETRAIN_CONCURRENT_JOBS": str(len(plots)),
        # What nobody needs of a candidate is gone before the story is over.
        "PENSTOCK_RETRAIN_CLEAN_AFTER_S": "5",
    }


def _played_back(plots: Sequence[Plot], adapter: Path, home: Path) -> dict[str, str]:
    answers = home / "answers.jsonl"
    with answers.open("w", encoding="utf-8") as file:
        for plot in plots:
            file.writelines(recording(plot))
    return {
        "PENSTOCK_INFERENCE_ENGINE": "scripted",
        "PENSTOCK_INFERENCE_ENGINE_CPUS": "0.1",
        "PENSTOCK_INFERENCE_SCRIPTED_TOKENS": "48",
        "PENSTOCK_INFERENCE_SCRIPTED_RECORDING": str(answers),
        "PENSTOCK_RETRAIN_IMPORTS_DIR": str(adapter.resolve().parent),
    }


def _routes(plots: Sequence[Plot]) -> list[Mapping[str, Any]]:
    """The example's route, for each story's model."""
    (route,) = _read("routes.json")
    (variant,) = route["variants"]
    return [
        {**route, "model": plot.model, "variants": [{**variant, "name": plot.champion}]}
        for plot in plots
    ]


def _prices(plots: Sequence[Plot]) -> Mapping[str, Any]:
    """The example's prices, for each story's model."""
    (price,) = _read("prices.json").values()
    return {plot.model: price for plot in plots}


def _read(name: str) -> Any:
    return json.loads((COMPOSE / name).read_text(encoding="utf-8"))


def _written(path: Path, document: object) -> Path:
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return path
