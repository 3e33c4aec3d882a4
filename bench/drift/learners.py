"""Error streams of a model that learns as it goes, on River's generators with a change of concept.

Gaussian naive Bayes predicts each example, then learns it; the value is whether it was wrong. After
a change of concept (River's ConceptDriftStream) its errors rise, and fall again as it learns.

A concept comes along a sigmoid. Its width before the middle, one example in fifty is of the new
concept: there the change begins, and delays are counted from there.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from river import naive_bayes
from river.datasets import synth

from bench.drift.streams import Scenario, Sizes

__all__ = ["LEARNERS"]

# Examples that the model learns from before anybody looks at its errors.
BURN_IN = 1000
# Examples over which a change comes. River's sigmoid overflows on a much narrower one.
WIDTHS = {"abrupt": 30, "gradual": 500}
SIZES = Sizes(streams=200, length=10_000, runs=100, patience=2000)
# LED has 24 features, and costs four times as much.
SHARES = {"LED": 0.5}

_MAKERS: Mapping[str, tuple[Callable[[int], Any], Callable[[int], Any]]] = {
    "SEA": (lambda seed: synth.SEA(variant=0, seed=seed), lambda seed: synth.SEA(3, seed=seed)),
    "Agrawal": (
        lambda seed: synth.Agrawal(classification_function=0, seed=seed),
        lambda seed: synth.Agrawal(classification_function=2, seed=seed),
    ),
    "STAGGER": (
        lambda seed: synth.STAGGER(classification_function=0, seed=seed),
        lambda seed: synth.STAGGER(classification_function=1, seed=seed),
    ),
    "LED": (
        lambda seed: synth.LED(seed=seed, noise_percentage=0.1, irrelevant_features=True),
        lambda seed: synth.LEDDrift(
            seed=seed, noise_percentage=0.1, irrelevant_features=True, n_drift_features=4
        ),
    ),
    "Sine": (
        lambda seed: synth.Sine(classification_function=0, seed=seed),
        lambda seed: synth.Sine(classification_function=2, seed=seed),
    ),
    "Hyperplane": (
        lambda seed: synth.Hyperplane(seed=1000 + seed, n_features=5, noise_percentage=0.05),
        lambda seed: synth.Hyperplane(seed=5000 + seed, n_features=5, noise_percentage=0.05),
    ),
}


def _errors(stream: Any, count: int) -> npt.NDArray[np.float64]:
    model = naive_bayes.GaussianNB()
    found = np.empty(count)
    for number, (x, y) in enumerate(itertools.islice(stream, BURN_IN + count)):
        if number >= BURN_IN:
            found[number - BURN_IN] = model.predict_one(x) != y
        model.learn_one(x, y)
    return found


def _scenario(name: str) -> Scenario:
    before, after = _MAKERS[name]

    def draw(rng: np.random.Generator, n: int, m: int, change: str) -> npt.NDArray[np.float64]:
        seed = int(rng.integers(1_000_000))
        stream = before(seed)
        if change:
            width = WIDTHS[change]
            middle = BURN_IN + n + width
            stream = synth.ConceptDriftStream(
                stream, after(seed + 1), position=middle, width=width, seed=seed
            )
        return _errors(stream, n + m)

    return Scenario(
        name.lower(),
        f"errors on {name}",
        "rate",
        draw,
        {change: f"{change}, over {width}" for change, width in WIDTHS.items()},
        worse=True,
        sizes=SIZES.shrunk(SHARES.get(name, 1.0)),
    )


LEARNERS: Mapping[str, Scenario] = {name.lower(): _scenario(name) for name in _MAKERS}
