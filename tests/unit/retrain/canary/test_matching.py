"""Blocks: which values meet is settled by the order of the arms alone."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_retrain.canary.config import Arm
from penstock_retrain.canary.matching import MAX_OPEN, Block, Matcher

ORDERS = st.lists(st.sampled_from(list(Arm)), max_size=120)
SHARES = st.floats(0.01, 0.99)
A, B = Arm.CHAMPION, Arm.CANDIDATE


def blocks_of(matcher: Matcher, order: list[Arm], first: int = 0) -> list[Block]:
    found = (matcher.add(arm, (float(number),)) for number, arm in enumerate(order, first))
    return [block for block in found if block is not None]


def numbers(block: Block) -> list[list[int]]:
    return [[int(score) for (score,) in block.scores[arm]] for arm in (A, B)]


def random_order(share: float, count: int, seed: int = 1) -> list[Arm]:
    draw = random.Random(seed)
    return [B if draw.random() < share else A for _ in range(count)]


def test_pairs_in_the_order_they_come() -> None:
    found = blocks_of(Matcher(0.5), [A, A, B, A, B, B])
    assert [numbers(block) for block in found] == [[[0], [2]], [[1], [4]], [[3], [5]]]


@pytest.mark.parametrize(
    ("share", "champions", "candidates"), [(0.05, 19, 1), (0.25, 3, 1), (0.5, 1, 1), (0.75, 1, 3)]
)
def test_composition_follows_the_declared_split(
    share: float, champions: int, candidates: int
) -> None:
    first = blocks_of(Matcher(share), [A] * 19 + [B] * 19)[0]
    assert first.sizes == {A: champions, B: candidates}


def test_composition_follows_the_split_that_is() -> None:
    # Feedback comes for one answer of the candidate in ten, though it has half of the traffic.
    matcher = Matcher(0.5)
    found = blocks_of(matcher, random_order(0.1, 4000))
    late = [block.sizes[A] for block in found[-100:]]
    assert all(block.sizes[B] == 1 for block in found[-100:])
    assert sum(late) / len(late) == pytest.approx(9, abs=1.0)


@pytest.mark.parametrize("share", [0.05, 0.25, 0.5, 0.6, 0.9])
def test_hardly_a_value_is_lost(share: float) -> None:
    matcher = Matcher(share)
    found = blocks_of(matcher, random_order(share, 20_000))
    used = sum(sum(block.sizes.values()) for block in found)
    assert used > 0.95 * 20_000
    assert matcher.dropped < 0.03 * 20_000


@pytest.mark.parametrize("share", [0.005, 0.03, 0.045, 0.05, 0.95, 0.97])
def test_hardly_a_value_of_the_rarer_arm_is_lost(share: float) -> None:
    order = random_order(share, 40_000)
    found = blocks_of(Matcher(share), order)
    rarer = B if share < 0.5 else A
    assert sum(block.sizes[rarer] for block in found) > 0.96 * order.count(rarer)


def test_a_tiny_share_compares_with_champions_of_the_same_time() -> None:
    # One in a hundred: blocks take twenty champions, and those from long ago are not kept.
    found = blocks_of(Matcher(0.01), random_order(0.01, 50_000))
    assert len(found) > 450
    for block in found[5:]:
        champions, candidates = numbers(block)
        assert candidates[0] - champions[0] < 1500


@given(ORDERS, SHARES, st.randoms(use_true_random=False))
def test_scores_have_no_say(order: list[Arm], share: float, draw: random.Random) -> None:
    one, two = Matcher(share), Matcher(share)
    for arm in order:
        first = one.add(arm, (0.0,))
        second = two.add(arm, (draw.random(),))
        assert (first and first.sizes) == (second and second.sizes)
    assert one.dropped == two.dropped


@settings(deadline=None)
@given(ORDERS, ORDERS, SHARES, SHARES)
def test_values_are_used_once_and_in_order(
    before: list[Arm], later: list[Arm], share: float, next_share: float
) -> None:
    matcher = Matcher(share)
    found = blocks_of(matcher, before)
    matcher.begin(next_share)
    found += blocks_of(matcher, later, len(before))
    for side, arm in enumerate((A, B)):
        used = [number for block in found for number in numbers(block)[side]]
        assert used == sorted(set(used))
        assert all((before + later)[number] is arm for number in used)
    open_blocks = matcher.state()["open"]
    assert len(open_blocks) <= MAX_OPEN
    kept = sum(len(block[arm.value]["scores"]) for block in open_blocks for arm in Arm)
    used_up = sum(sum(block.sizes.values()) for block in found)
    assert used_up + kept + matcher.dropped == len(before + later)


def test_a_new_step_leaves_waiting_values_where_they_are() -> None:
    matcher = Matcher(0.25)
    assert not blocks_of(matcher, [A, A, A, A])
    matcher.begin(0.5)
    first = matcher.add(B, (4.0,))
    second = matcher.add(B, (5.0,))
    assert first is not None
    assert numbers(first) == [[0, 1, 2], [4]]
    # The fourth champion waits in a block of the old composition still.
    assert second is None


@given(ORDERS, ORDERS, SHARES)
def test_a_state_goes_on_as_if_nothing_had_happened(
    before: list[Arm], later: list[Arm], share: float
) -> None:
    straight = Matcher(share)
    blocks_of(straight, before)
    taken_up = Matcher.from_state(json.loads(json.dumps(straight.state())))
    assert blocks_of(taken_up, later) == blocks_of(straight, later)
    assert taken_up.state() == straight.state()
