"""What a canary will be able to tell, said before it starts."""

from __future__ import annotations

import pytest

from penstock_retrain.canary import CanaryConfig, Goal, MetricSpec
from penstock_retrain.canary.comparison import Question
from penstock_retrain.canary.power import (
    Step,
    _reaches,
    equal_blocks,
    power,
    prospects,
    smallest_effect,
)

METRIC = MetricSpec("accuracy")
STEPS = [Step(0.05, 4000), Step(0.25, 4000), Step(0.5, 8000)]


def test_a_brownian_motion_by_hand() -> None:
    # Without drift: 2 (1 - Phi(1)) by the reflection principle; with: Phi(0) + e^2 Phi(-2).
    assert _reaches(1.0, 0.0, 1.0, 1.0) == pytest.approx(0.317311, abs=1e-6)
    assert _reaches(1.0, 1.0, 1.0, 1.0) == pytest.approx(0.668102, abs=1e-6)
    assert _reaches(1.0, 1.0, 0.0, 2.0) == 1.0
    assert _reaches(500.0, 2.0, 1.0, 1e6) == pytest.approx(1.0)
    assert _reaches(500.0, -2.0, 1.0, 1e6) == pytest.approx(0.0, abs=1e-12)


def test_steps_add_up_by_precision() -> None:
    # 200 and 3800: 1 / 200 + 1 / 3800 = 2 / 380.
    assert equal_blocks(STEPS[:1]) == pytest.approx(380.0)
    assert equal_blocks(STEPS) == pytest.approx(380.0 + 1500.0 + 4000.0)


@pytest.mark.parametrize("question", list(Question))
def test_power_rises_with_size_and_samples(question: Question) -> None:
    sign = -1.0 if question is Question.HARM else 1.0
    table = [
        [
            power(METRIC, question, level=0.05, mean=0.8, difference=sign * size, blocks=blocks)
            for size in (0.0, 0.01, 0.02, 0.05, 0.1)
        ]
        for blocks in (0, 100, 1000, 10_000)
    ]
    assert table[0] == [0.0] * 5
    for row in table:
        assert row == sorted(row)
    for column in zip(*table, strict=True):
        assert list(column) == sorted(column)
    assert table[-1][-1] > 0.999


def test_at_the_boundary_power_is_below_the_level() -> None:
    for question, difference in (
        (Question.HARM, 0.0),
        (Question.GAIN, 0.0),
        (Question.NON_INFERIORITY, -0.02),
    ):
        found = power(METRIC, question, level=0.05, mean=0.8, difference=difference, blocks=1e5)
        assert 0.005 < found < 0.05


def test_the_smallest_effect_has_the_power() -> None:
    def power_at(size: float) -> float:
        return power(METRIC, Question.HARM, level=0.05, mean=0.9, difference=-size, blocks=1000)

    found = smallest_effect(power_at, 0.9)
    assert found is not None
    assert power_at(found) >= 0.8 > power_at(found - 1e-4)
    assert found == pytest.approx(0.0546, abs=1e-3)
    assert smallest_effect(power_at, 0.01) is None


def test_prospects_of_a_canary() -> None:
    found = prospects(CanaryConfig(METRIC), 0.9, STEPS)
    assert [(each.champion, each.candidate) for each in found] == [
        (3800, 200),
        (6800, 1200),
        (10800, 5200),
    ]
    harms = [each.harm for each in found if each.harm is not None]
    assert harms == sorted(harms, reverse=True)
    assert harms == pytest.approx([0.0955, 0.0379, 0.0192], abs=1e-3)
    assert all(each.gain is None for each in found)
    assert found[-1].promotes_equal == pytest.approx(0.89, abs=0.01)
    gains = prospects(CanaryConfig(METRIC, Goal.GAIN), 0.9, STEPS)
    assert gains[-1].gain == pytest.approx(0.0171, abs=1e-3)
    assert gains[-1].promotes_equal is None


def test_pairs_that_mostly_agree_are_worth_more_blocks() -> None:
    # Independent arms at 0.9 differ on 18 % of the prompts; these on 6 %.
    config = CanaryConfig(METRIC)
    (alone,) = prospects(config, 0.9, [Step(0.5, 6000)])
    (paired,) = prospects(config, 0.9, [Step(0.5, 2)], pairs=1000, discordant=0.06)
    (cautious,) = prospects(config, 0.9, [Step(0.5, 2)], pairs=3000)
    assert (paired.champion, paired.candidate) == (1001, 1001)
    assert paired.harm == pytest.approx(alone.harm, abs=1e-4)
    assert cautious.harm == pytest.approx(alone.harm, abs=1e-4)


def test_a_short_canary_can_tell_nothing() -> None:
    (only,) = prospects(CanaryConfig(METRIC, Goal.GAIN), 0.98, [Step(0.01, 200)])
    assert only.gain is None
