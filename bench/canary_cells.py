"""The cells of the canary's simulation: each is a function of its seed, and returns figures."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from canary_runs import NEVER, Alive, Batch, Comparisons, Floats, Ints, Rivals, first

from penstock_retrain.canary.comparison import Question
from penstock_retrain.canary.config import MetricSpec
from penstock_retrain.canary.power import power, smallest_effect
from penstock_retrain.canary.shares import CONCENTRATION

__all__ = ["CELLS", "RUNS"]

RUNS = 10_000
Figures = dict[str, Any]
Cell = Callable[[np.random.Generator, int], Figures]
METRIC = MetricSpec("accuracy", effect=0.02, margin=0.02)
# Both tests of the canary together then err as the rules that are compared: 5 %.
HALF = 0.025
DELTA = 0.05
Z = 1.959964
HORIZON = 3000
ERRORS = (0.01, 0.025)


def _share(found: np.ndarray[Any, Any]) -> float:
    return round(float(np.mean(found)), 5)


def _median(when: Ints, chosen: np.ndarray[Any, Any]) -> float | None:
    return float(np.median(when[chosen])) if chosen.any() else None


def _ones(rng: np.random.Generator, runs: int, rate: float) -> Floats:
    return (rng.random(runs, dtype=np.float32) < rate).astype(float)


def _blocks(
    rng: np.random.Generator, alive: Alive, rates: tuple[float, float], plan: list[tuple[int, int]]
) -> Iterator[Batch]:
    """Blocks of right and wrong answers; plan: blocks and the champion's values in each."""
    for count, size in plan:
        for _ in range(count):
            if size == 1:
                champion = _ones(rng, alive.runs, rates[0])
            else:
                champion = rng.binomial(size, rates[0], alive.runs).astype(float)
            sums = (champion, _ones(rng, alive.runs, rates[1]))
            yield Batch((size, 1), sums, sums)


def _race(
    base: float, other: float, rng: np.random.Generator, runs: int
) -> tuple[dict[str, Ints], dict[str, Floats]]:
    """The canary's tests and the rivals on the same values; when they declare, what they reach."""
    ours = Comparisons(runs, METRIC, (Question.HARM, Question.GAIN))
    rivals = Rivals(runs)
    when = {name: np.full(runs, NEVER) for name in ("gain", "harm", "rule+", "rule-", "peek")}
    for now, block in enumerate(_blocks(rng, Alive(runs), (base, other), [(HORIZON, 1)]), 1):
        ours.settle_block(block)
        excess, z = rivals.settle(*block.sums)
        for name, question in (("gain", Question.GAIN), ("harm", Question.HARM)):
            first(ours.tests[question].e >= 1.0 / HALF, when[name], now)
        declared = excess > -math.log(DELTA)
        first(declared & (z > 0), when["rule+"], now)
        first(declared & (z < 0), when["rule-"], now)
        if now >= Rivals.LEAST:
            first(np.abs(z) > Z, when["peek"], now)
    reached = {
        "canary": ours.tests[Question.GAIN].peak,
        "rule": rivals.excess["candidate"],
        "z": rivals.z,
    }
    return when, reached


def table(base: float, other: float, seed_runs: tuple[np.random.Generator, int]) -> Figures:
    """Beside the rivals at one value an arm, looked at after every pair."""
    when, reached = _race(base, other, *seed_runs)
    found: Figures = {}
    for name, right, wrong in (("canary", "gain", "harm"), ("rule", "rule+", "rule-")):
        wins = when[right] < when[wrong]
        loses = when[wrong] < when[right]
        found[name] = {
            "declared": _share(wins | loses),
            "candidate": _share(wins),
            "champion": _share(loses),
            "median": _median(when[right], wins),
            "by_50": _share(np.minimum(when[right], when[wrong]) <= 50),
        }
    z = reached["z"]
    found["z"] = {
        "declared": _share(np.abs(z) > Z),
        "candidate": _share(z > Z),
        "champion": _share(z < -Z),
        "peeking": _share(when["peek"] < NEVER),
    }
    return found


def equal_error(base: float, other: float, seed_runs: tuple[np.random.Generator, int]) -> Figures:
    """Power where each rule's threshold is set so that equal arms give the same share of errors.

    Errors: of 10,000 runs of equal arms at the champion's rate the share that declares the
    candidate, for given shares and for the one that the rule makes at its own delta.
    """
    _, equal = _race(base, base, *seed_runs)
    _, better = _race(base, other, *seed_runs)
    own = float(np.mean(equal["rule"] > -math.log(DELTA)))
    errors = [*ERRORS, own]
    found: Figures = {"errors": [round(error, 5) for error in errors]}
    for name, values in equal.items():
        ordered = np.sort(values)[::-1]
        # The error-th largest is the first that no longer is declared.
        limits = [ordered[round(error * len(ordered))] for error in errors]
        found[name] = [_share(better[name] > limit) for limit in limits]
    return found


def _ends(harm: Ints, promote: Ints, minimum: int = 50) -> Figures:
    """What the verdict says, looked at after every block."""
    shown = np.where(promote == NEVER, NEVER, np.maximum(promote, minimum))
    back, on = (harm <= shown) & (harm < NEVER), shown < harm
    return {
        "roll_back": _share(back),
        "promote": _share(on),
        "inconclusive": _share(~back & ~on),
        "roll_back_at": _median(harm, back),
        "promote_at": _median(shown, on),
    }


def _verdicts(
    batches: Iterator[Batch | Floats],
    alive: Alive,
    metric: MetricSpec,
    goal: Question,
    level: float = 0.05,
) -> Figures:
    comparison = Comparisons(alive.runs, metric, (Question.HARM, goal))
    when = {question: np.full(alive.runs, NEVER) for question in comparison.tests}
    which = np.arange(alive.runs)
    for now, batch in enumerate(batches, 1):
        if isinstance(batch, Batch):
            comparison.settle_block(batch)
        else:
            comparison.settle_pair(batch)
        for question, test in comparison.tests.items():
            at = when[question]
            reached = which[test.e >= 1.0 / level]
            at[reached] = np.minimum(at[reached], now)
        if now % 50 == 0:
            # What has ended stays ended; before the minimum nothing is promoted.
            going = np.minimum(*when.values())[which] == NEVER
            which, alive.runs = which[going], int(going.sum())
            comparison.keep(going)
            if not alive.runs:
                break
    return _ends(when[Question.HARM], when[goal])


def verdict(
    base: float, difference: float, goal: Question, seed_runs: tuple[np.random.Generator, int]
) -> Figures:
    """Harm test and promoting test together, 1 : 1."""
    rng, runs = seed_runs
    alive = Alive(runs)
    blocks = _blocks(rng, alive, (base, base + difference), [(5000, 1)])
    return _verdicts(blocks, alive, METRIC, goal)


STEPS = [(150, 19), (350, 3), (2500, 1)]


def steps(
    base: float, difference: float, goal: Question, seed_runs: tuple[np.random.Generator, int]
) -> Figures:
    """The candidate's share rises: 5 %, 25 %, 50 %; evidence is carried."""
    rng, runs = seed_runs
    alive = Alive(runs)
    return _verdicts(_blocks(rng, alive, (base, base + difference), STEPS), alive, METRIC, goal)


STARS = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
RATED = np.array([0.05, 0.05, 0.10, 0.30, 0.50])


def stars(difference: float, goal: Question, seed_runs: tuple[np.random.Generator, int]) -> Figures:
    """Ratings of one to five stars; the candidate loses by more one-star ratings."""
    rng, runs = seed_runs
    alive = Alive(runs)
    # Moves mass from five stars to one: a difference of the mean of exactly that mass.
    worse = RATED + np.array([-difference, 0, 0, 0, difference])

    def batches() -> Iterator[Batch]:
        edges = [np.cumsum(weights)[:-1] for weights in (RATED, worse)]
        for _ in range(3000):
            champion, candidate = (
                STARS[np.searchsorted(e, rng.random(alive.runs, dtype=np.float32))] for e in edges
            )
            yield Batch((1, 1), (champion, candidate), (champion**2, candidate**2))

    return _verdicts(batches(), alive, METRIC, goal)


def pairs(
    better: float, worse: float, goal: Question, seed_runs: tuple[np.random.Generator, int]
) -> Figures:
    """Both answer the same prompts: shares of prompts that only one of them answers right."""
    rng, runs = seed_runs
    alive = Alive(runs)

    def batches() -> Iterator[Floats]:
        for _ in range(3000):
            u = rng.random(alive.runs, dtype=np.float32)
            yield (u < better).astype(float) - ((u >= better) & (u < better + worse))

    return _verdicts(batches(), alive, METRIC, goal)


GUARDRAILS = {"errors": 0.01, "slow": 0.05, "dear": 0.10, "poor": 0.15}


def guardrails(harmed: dict[str, float], seed_runs: tuple[np.random.Generator, int]) -> Figures:
    """Four guardrails, half of whose events coincide, by e-BH at 5 %; 3,000 values an arm."""
    rng, runs = seed_runs
    among, level = len(GUARDRAILS), 0.05
    each = {name: Comparisons(runs, METRIC, (Question.HARM,)) for name in GUARDRAILS}
    when = {name: np.full(runs, NEVER) for name in GUARDRAILS}
    for now in range(1, 3001):
        common = rng.random((2, runs), dtype=np.float32)
        for name, rate in GUARDRAILS.items():
            rates = np.array([[rate], [rate + harmed.get(name, 0.0)]])
            own = rng.random((2, runs), dtype=np.float32)
            bad = np.where(rng.random((2, runs), dtype=np.float32) < 0.5, common, own) < rates
            good = 1.0 - bad
            sums = (good[0], good[1])
            each[name].settle_block(Batch((1, 1), sums, sums))
        values = np.array([each[name].tests[Question.HARM].e for name in GUARDRAILS])
        ordered = -np.sort(-values, axis=0)
        enough = ordered * np.arange(1, among + 1)[:, None] >= among / level
        cut = np.where(enough, ordered, np.inf).min(axis=0)
        for name, value in zip(GUARDRAILS, values, strict=True):
            first(value >= cut, when[name], now)
    found = np.array([when[name] for name in GUARDRAILS])
    wrong = np.array([name not in harmed for name in GUARDRAILS])
    # The set that is found first rolls back; nothing is looked at after that.
    earliest = found.min(axis=0)
    found = np.where((found == earliest) & (found < NEVER), found, NEVER)
    hits = (found < NEVER).sum(axis=0)
    return {
        "any": _share(hits > 0),
        "median": _median(earliest, earliest < NEVER),
        "false_share": round(
            float(np.mean((found[wrong] < NEVER).sum(axis=0) / np.maximum(hits, 1))), 5
        ),
        "each": {name: _share(at < NEVER) for name, at in zip(GUARDRAILS, found, strict=True)},
    }


def shares(declared: float, real: float, seed_runs: tuple[np.random.Generator, int]) -> Figures:
    """The check of the split at level 0.001: 20,000 requests, looked at after each."""
    rng, runs = seed_runs
    counts, log_e = np.zeros(runs), np.zeros(runs)
    when = np.full(runs, NEVER)
    for now in range(20_000):
        candidate = rng.random(runs, dtype=np.float32) < real
        prior = CONCENTRATION * np.where(candidate, declared, 1.0 - declared)
        seen = np.where(candidate, counts, now - counts)
        log_e += np.log((prior + seen) / (CONCENTRATION + now))
        log_e -= np.where(candidate, math.log(declared), math.log(1.0 - declared))
        counts += candidate
        first(log_e >= math.log(1000.0), when, now + 1)
    return {"mismatched": _share(when < NEVER), "median": _median(when, when < NEVER)}


def prospect(
    base: float, blocks: int, question: Question, seed_runs: tuple[np.random.Generator, int]
) -> Figures:
    """Power at the effect that `power.smallest_effect` says is found with probability 0.8."""
    rng, runs = seed_runs
    sign, level = -1.0 if question is Question.HARM else 1.0, 0.05
    limit = base if question is Question.HARM else 1.0 - base

    def power_at(size: float) -> float:
        return power(
            METRIC, question, level=level, mean=base, difference=sign * size, blocks=blocks
        )

    size = smallest_effect(power_at, limit)
    if size is None:
        return {"effect": None}
    comparison = Comparisons(runs, METRIC, (question,))
    for block in _blocks(rng, Alive(runs), (base, base + sign * size), [(blocks, 1)]):
        comparison.settle_block(block)
    reached = comparison.tests[question].peak >= 1.0 / level
    return {"effect": round(size, 5), "power": _share(reached)}


def _cell(part: Callable[..., Figures], *arguments: Any) -> Cell:
    return lambda rng, runs: part(*arguments, (rng, runs))


NI, GAIN, HARM = Question.NON_INFERIORITY, Question.GAIN, Question.HARM
CELLS: dict[str, Cell] = {
    **{
        f"table {other:g} vs {base:g}": _cell(table, base, other)
        for base, other in (
            (0.5, 0.5),
            (0.9, 0.9),
            (0.95, 0.95),
            (0.98, 0.98),
            (0.90, 0.92),
            (0.95, 0.97),
            (0.98, 0.995),
        )
    },
    **{
        f"equal error {other:g} vs {base:g}": _cell(equal_error, base, other)
        for base, other in ((0.90, 0.92), (0.95, 0.97), (0.98, 0.995))
    },
    **{
        f"verdict {goal.value} {base:g} {difference:+g}": _cell(verdict, base, difference, goal)
        for goal, differences in (
            (NI, (0.0, -0.02, -0.05, -0.1, -0.3)),
            (GAIN, (0.0, -0.02, 0.02)),
        )
        for base in (0.5, 0.75, 0.9, 0.95)
        for difference in differences
    },
    **{
        f"steps {goal.value} 0.9 {difference:+g}": _cell(steps, 0.9, difference, goal)
        for goal, difference in (
            (NI, 0.0),
            (NI, -0.02),
            (NI, -0.05),
            (NI, -0.1),
            (GAIN, 0.0),
            (GAIN, 0.02),
        )
    },
    **{
        f"stars {goal.value} {difference:+g}": _cell(stars, difference, goal)
        for goal, difference in ((NI, 0.0), (NI, -0.02), (NI, -0.05), (GAIN, 0.0), (GAIN, 0.02))
    },
    **{
        f"pairs {goal.value} +{better:g} -{worse:g}": _cell(pairs, better, worse, goal)
        for goal, better, worse in (
            (GAIN, 0.03, 0.03),
            (GAIN, 0.04, 0.02),
            (NI, 0.03, 0.03),
            (NI, 0.02, 0.04),
            (NI, 0.01, 0.06),
        )
    },
    **{
        f"guardrails {name}": _cell(guardrails, harmed)
        for name, harmed in (
            ("none", {}),
            ("slow +0.03", {"slow": 0.03}),
            ("slow +0.03, dear +0.04", {"slow": 0.03, "dear": 0.04}),
        )
    },
    **{
        f"shares {declared:g} is {real:g}": _cell(shares, declared, real)
        for declared, real in (
            (0.05, 0.05),
            (0.5, 0.5),
            (0.05, 0.06),
            (0.5, 0.52),
            (0.5, 0.49),
        )
    },
    **{
        f"prospect {question.value} {base:g} {blocks}": _cell(prospect, base, blocks, question)
        for question in (HARM, GAIN)
        for base in (0.75, 0.9)
        for blocks in (200, 1000, 4000)
    },
}
