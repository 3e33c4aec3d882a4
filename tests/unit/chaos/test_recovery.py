"""Recovery ends with the first answer on the last partition; the longest wait sees later stops."""

from __future__ import annotations

import math

from tests.chaos.recovery import Answer, Span, percentile, recoveries

SPAN = Span("pump kill", begin=100.0, end=100.0, horizon=200.0)


def test_recovery_ends_on_the_last_partition() -> None:
    answers = [Answer(100.1, 100.6, 0), Answer(100.2, 112.0, 1), Answer(103.0, 112.5, 1)]
    (found,) = recoveries(answers, [SPAN], partitions=2)
    assert found.seconds == 12.0


def test_answers_to_what_was_asked_before_do_not_count() -> None:
    answers = [Answer(99.9, 100.1, 0), Answer(104.0, 109.0, 0)]
    (found,) = recoveries(answers, [SPAN], partitions=1)
    assert found.seconds == 9.0


def test_a_partition_without_an_answer_has_not_recovered() -> None:
    answers = [Answer(101.0, 101.5, 0), Answer(201.0, 201.5, 1)]
    (found,) = recoveries(answers, [SPAN], partitions=2)
    assert found.seconds is None


def test_longest_wait_counts_from_the_fault_and_sees_what_stops_later() -> None:
    answers = [Answer(90.0, 107.0, 0), Answer(101.0, 101.5, 0), Answer(120.0, 131.0, 0)]
    (found,) = recoveries(answers, [SPAN], partitions=1)
    assert found.seconds == 1.5
    assert found.longest_wait_s == 11.0


def test_nothing_to_answer_is_no_recovery() -> None:
    (found,) = recoveries([], [Span("x", 1.0, 1.0, math.inf)], partitions=4)
    assert found.seconds is None


def test_percentiles_are_observed_values() -> None:
    values = [float(value) for value in range(1, 101)]
    assert percentile(values, 0.5) == 50.0
    assert percentile(values, 0.99) == 99.0
    assert percentile([7.0], 0.99) == 7.0
