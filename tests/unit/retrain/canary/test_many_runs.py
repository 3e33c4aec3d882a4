"""The simulation's arrays say what the module says, to the last digits."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from canary_runs import Batch, Comparisons, Rivals

from penstock_retrain.canary import Arm, CanaryConfig, CanaryTest, Goal, MetricSpec
from penstock_retrain.canary.comparison import Question
from penstock_retrain.canary.matching import Block, Matcher

A, B = Arm.CHAMPION, Arm.CANDIDATE


def batch_of(block: Block) -> Batch:
    champion, candidate = (np.array(block.scores[arm]) for arm in (A, B))
    return Batch(
        (len(champion), len(candidate)),
        (champion.sum(axis=0), candidate.sum(axis=0)),
        ((champion**2).sum(axis=0), (candidate**2).sum(axis=0)),
    )


@pytest.mark.parametrize("goal", list(Goal))
@pytest.mark.parametrize("expected", [None, 0.9])
def test_blocks_pairs_and_steps(goal: Goal, expected: float | None) -> None:
    """Answers in a random order to the module; the blocks that they make, to the arrays."""
    metric = MetricSpec("accuracy", effect=0.03, margin=0.04, harm_margin=0.01, expected=expected)
    runs = 3
    trials = [CanaryTest(CanaryConfig(metric, goal)) for _ in range(runs)]
    copies = Comparisons(runs, metric, (Question.HARM, Question(goal.value)))
    # Blocks follow from the order of the arms, which is the same in all runs.
    matcher = Matcher()
    draw = random.Random(4)
    shapes = set()
    for share in (0.05, 0.25, 0.5):
        matcher.begin(share)
        for trial in trials:
            trial.begin(share)
        for _ in range(400):
            arm = B if draw.random() < share else A
            scores = [round(draw.random(), 3) ** (0.1 if arm is A else 0.2) for _ in trials]
            for trial, score in zip(trials, scores, strict=True):
                trial.update(arm, "accuracy", score)
            block = matcher.add(arm, tuple(scores))
            if block is not None:
                copies.settle_block(batch_of(block))
                shapes.add(tuple(block.sizes.values()))
        for _ in range(20):
            pair = np.zeros(runs)
            for run, trial in enumerate(trials):
                champion, candidate = float(draw.random() < 0.9), float(draw.random() < 0.8)
                trial.update_pair("accuracy", champion, candidate)
                pair[run] = candidate - champion
            copies.settle_pair(pair)
    assert shapes >= {(19, 1), (3, 1), (1, 1)}
    for run, trial in enumerate(trials):
        known = trial.evidence().metrics["accuracy"]
        for question, reading in known.tests.items():
            assert math.log(copies.tests[question].e[run]) == pytest.approx(reading.log_e, rel=1e-8)
            assert math.log(copies.tests[question].peak[run]) == pytest.approx(
                reading.peak, rel=1e-8
            )


def test_the_rival_rule_by_hand() -> None:
    # Ten pairs: nine of ten and five of ten right. Sample variances 0.1 and 0.2778; t = 20.
    rivals = Rivals(1)
    champion, candidate = [1.0, 0.0] * 5, [0.0] + [1.0] * 9
    for one, other in zip(champion, candidate, strict=True):
        excess, z = rivals.settle(np.array([one]), np.array([other]))
        assert np.isinf(excess[0]) == (rivals.count < 10)
    statistic = 0.4**2 / (2 * (0.1 / 10 + (2.5 / 9) / 10))
    assert excess[0] == pytest.approx(statistic - math.log(1 + math.log(20)))
    assert z[0] == pytest.approx(0.4 / math.sqrt(2 * 0.7 * 0.3 / 10))
    assert rivals.excess["candidate"][0] == excess[0]
    assert rivals.excess["champion"][0] == -np.inf
