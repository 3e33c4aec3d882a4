"""Streams that detectors are compared on: without a change, and with one at a known value.

Everything is drawn from seeds. A scenario's quiet half gives the mean time to a false alarm, its
changes the delays. Values come as a signal would have them: 0 or 1, numbers, scores, categories.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from bench.drift.matching import Changed, Quiet

__all__ = ["DAY", "SCENARIOS", "SPACING_MS", "Scenario", "Sizes", "changed", "quiet"]

Floats = npt.NDArray[np.float64]
# Values of n before a change and m after it, of the change's name.
Draw = Callable[[np.random.Generator, int, int, str], Floats]

# Values of a seasonal stream per day, and what lies between two of them.
DAY = 2000
SPACING_MS = 86_400_000 // DAY
# The change comes at a value drawn from here, counted from the baseline's end.
EARLIEST, LATEST = 300, 700


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much is drawn of a scenario.

    Attributes:
        streams: Quiet ones; half of them tune, half report.
        length: Values of a quiet one after its baseline.
        runs: Streams per change.
        patience: Values after a change, after which it counts as missed.
    """

    streams: int = 400
    length: int = 20_000
    runs: int = 200
    patience: int = 4000

    def shrunk(self, share: float) -> Sizes:
        """The same with fewer streams and runs."""
        streams, runs = round(self.streams * share), round(self.runs * share)
        return dataclasses.replace(self, streams=max(4, streams // 2 * 2), runs=max(2, runs))


@dataclasses.dataclass(frozen=True)
class Scenario:
    """A kind of stream.

    Attributes:
        name: Short.
        title: For people.
        kind: `rate` (0 or 1), `number`, `score` (in [0, 1]) or `category` (an index).
        draw: Gives its values.
        changes: Names of its changes, and what they are called for people.
        logarithm: Whether log(1 + x) is compared.
        worse: Whether higher is worse; None for neither.
        season: Whether a day passes every `DAY` values.
        baseline: Values that everybody learns from.
        sizes: How much is drawn.
    """

    name: str
    title: str
    kind: str
    draw: Draw
    changes: Mapping[str, str]
    logarithm: bool = False
    worse: bool | None = None
    season: bool = False
    baseline: int = 2000
    sizes: Sizes = Sizes()


def quiet(scenario: Scenario, seed: int) -> Quiet:
    """Streams without a change."""
    size, base = scenario.sizes, scenario.baseline
    rows = [
        scenario.draw(_random(scenario, seed, "quiet", number), base + size.length, 0, "")
        for number in range(size.streams)
    ]
    values = np.array(rows, dtype=np.float32)
    return Quiet(values[:, :base], values[:, base:])


def changed(scenario: Scenario, change: str, seed: int) -> Changed:
    """Streams with a change; drawn apart from the quiet ones."""
    size, base = scenario.sizes, scenario.baseline
    length = LATEST + size.patience
    rows, places = [], []
    for number in range(size.runs):
        rng = _random(scenario, seed, change, number)
        place = int(rng.integers(EARLIEST, LATEST + 1))
        rows.append(scenario.draw(rng, base + place, length - place, change))
        places.append(place)
    values = np.array(rows, dtype=np.float32)
    return Changed(values[:, :base], values[:, base:], np.array(places))


def _random(scenario: Scenario, seed: int, what: str, number: int) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(f"{scenario.name}/{what}".encode()), number])


def _rates(before: float, after: Mapping[str, float]) -> Draw:
    def draw(rng: np.random.Generator, n: int, m: int, change: str) -> Floats:
        rate = np.full(n + m, before)
        rate[n:] = after.get(change, before)
        return (rng.random(n + m) < rate).astype(float)

    return draw


def _numbers(noise: Callable[[np.random.Generator, int], Floats]) -> Draw:
    """Changes are named `+0.5` (deviations) or `x2` (the spread)."""

    def draw(rng: np.random.Generator, n: int, m: int, change: str) -> Floats:
        values = noise(rng, n + m)
        if change.startswith("x"):
            values[n:] *= float(change[1:])
        elif change:
            values[n:] += float(change)
        return values

    return draw


def _gauss(rng: np.random.Generator, count: int) -> Floats:
    return rng.standard_normal(count)


def _student(rng: np.random.Generator, count: int) -> Floats:
    # Divided by its deviation, the square root of 3.
    return rng.standard_t(3, count) / np.sqrt(3)


def _autoregressive(rng: np.random.Generator, count: int) -> Floats:
    noise = rng.standard_normal(count) * np.sqrt(1 - 0.5**2)
    values = np.empty(count)
    last = rng.standard_normal()
    for index in range(count):
        last = values[index] = 0.5 * last + noise[index]
    return values


def _seasonal(rng: np.random.Generator, count: int) -> Floats:
    return rng.standard_normal(count) + 0.5 * np.sin(2 * np.pi * np.arange(count) / DAY)


def _length(rng: np.random.Generator, n: int, m: int, change: str) -> Floats:
    """Tokens of answers: log-normal, sigma 0.8; changes multiply them."""
    tokens = rng.lognormal(5.0, 0.8, n + m)
    tokens[n:] *= float(change) if change else 1.0
    return np.round(tokens)


def _latency(rng: np.random.Generator, n: int, m: int, change: str) -> Floats:
    """Seconds: log-normal, one in twenty five times as slow."""
    seconds = rng.lognormal(0.0, 0.4, n + m)
    slow = np.full(n + m, 0.05)
    if change == "tail":
        slow[n:] = 0.15
    elif change:
        seconds[n:] *= float(change)
    return seconds * np.where(rng.random(n + m) < slow, 5.0, 1.0)


def _score(rng: np.random.Generator, n: int, m: int, change: str) -> Floats:
    """Groundedness: Beta(8, 2), mean 0.8; a change lowers the mean."""
    before = rng.beta(8, 2, n)
    mean = 0.8 - float(change or 0)
    return np.concatenate([before, rng.beta(10 * mean, 10 * (1 - mean), m)])


def _category(rng: np.random.Generator, n: int, m: int, change: str) -> Floats:
    """Six languages; ten points go from the most frequent to the rarest."""
    shares = np.array([0.5, 0.2, 0.15, 0.08, 0.05, 0.02])
    after = shares + np.array([-0.1, 0, 0, 0, 0, 0.1]) if change else shares
    before = rng.choice(6, n, p=shares)
    return np.concatenate([before, rng.choice(6, m, p=after)]).astype(float)


_REFUSALS = {"0.05": "2 to 5 %", "0.10": "2 to 10 %", "0.005": "2 to 0.5 %"}
_DRAWN: Sequence[Scenario] = (
    Scenario("refusals", "refusals, 2 %", "rate",
             _rates(0.02, {key: float(key) for key in _REFUSALS}), _REFUSALS),
    Scenario("rare", "leaks of personal data, 0.2 %", "rate", _rates(0.002, {"0.01": 0.01}),
             {"0.01": "0.2 to 1 %"}, worse=True),
    Scenario("classes", "an answer's class, 20 %", "rate",
             _rates(0.2, {"0.3": 0.3, "0.1": 0.1}), {"0.3": "20 to 30 %", "0.1": "20 to 10 %"}),
    Scenario("valid", "thumbs up, 10 %", "rate", _rates(0.1, {"0.02": 0.02}),
             {"0.02": "10 to 2 %"}, worse=False),
    Scenario("errors", "errors by feedback, 12 %", "rate", _rates(0.12, {"0.2": 0.2}),
             {"0.2": "12 to 20 %"}, worse=True),
    Scenario("gauss", "independent, Gaussian", "number", _numbers(_gauss),
             {"+0.25": "+0.25 sd", "+0.5": "+0.5 sd", "+1": "+1 sd", "x2": "spread doubled",
              "x0.5": "spread halved"}),
    Scenario("student", "heavy tails, t of 3", "number", _numbers(_student),
             {"+0.5": "+0.5 sd", "x2": "spread doubled"}),
    Scenario("length", "length of answers, log-normal", "number", _length,
             {"1.2": "20 % longer", "2": "twice as long"}, logarithm=True),
    Scenario("latency", "latency with a slow tail", "number", _latency,
             {"1.3": "30 % slower", "tail": "tail 5 to 15 %"}, logarithm=True, worse=True),
    Scenario("ar1", "neighbours alike, AR(1) of 0.5", "number", _numbers(_autoregressive),
             {"+0.5": "+0.5 sd", "+1": "+1 sd"}),
    Scenario("season", "a day's season of 0.5 sd", "number", _numbers(_seasonal),
             {"+0.5": "+0.5 sd"}, season=True, baseline=3 * DAY,
             sizes=Sizes(streams=120)),
    Scenario("score", "groundedness, Beta(8, 2)", "score", _score,
             {"0.05": "mean 0.80 to 0.75"}, worse=False),
    Scenario("languages", "six languages", "category", _category,
             {"mix": "ten points move"}),
)  # fmt: skip
SCENARIOS: Mapping[str, Scenario] = {each.name: each for each in _DRAWN}
