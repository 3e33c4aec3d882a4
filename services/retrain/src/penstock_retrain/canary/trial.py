"""A canary under way: values in, a verdict out, state to and from JSON. Pure.

    trial = CanaryTest(config)
    trial.begin(share=0.05)
    trial.update(Arm.CANDIDATE, "accuracy", 1.0)
    trial.update_pair("accuracy", champion=0.0, candidate=1.0)
    trial.decide().decision

The same calls in the same order give the same state, wherever it was saved and taken up between.
It keeps no request ids: whoever feeds it gives each value once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Self

from penstock_retrain.canary.comparison import Comparison, Question
from penstock_retrain.canary.config import Arm, CanaryConfig, Goal, MetricSpec
from penstock_retrain.canary.matching import Block, Matcher
from penstock_retrain.canary.multiplicity import rejected
from penstock_retrain.canary.shares import ShareCheck
from penstock_retrain.canary.verdict import (
    Evidence,
    MetricEvidence,
    Reading,
    Verdict,
    decide,
)

__all__ = ["CanaryTest"]

VERSION = 1


class CanaryTest:
    """The test of a candidate against the champion."""

    def __init__(self, config: CanaryConfig) -> None:
        self.config = config
        self.share = 0.0
        self._origins: dict[str, tuple[MetricSpec, ...]] = {}
        for metric in config.metrics:
            known = self._origins.get(metric.origin, ())
            self._origins[metric.origin] = (*known, metric)
        self._comparisons = {
            metric.name: Comparison(
                metric, config.goal if metric is config.primary else Goal.NON_INFERIORITY
            )
            for metric in config.metrics
        }
        self._matchers = {origin: Matcher() for origin in self._origins}
        self._counts: dict[str, ShareCheck] = {}
        self._harmed: dict[str, None] = {}

    def begin(self, share: float) -> None:
        """Begins a traffic step: the candidate now gets this share, in [0, 1]; 0 while shadowing.

        Evidence goes on from where it stood.
        """
        if not 0.0 <= share <= 1.0:
            raise ValueError(f"share is {share}; give the candidate's share of traffic in [0, 1]")
        self.share = share
        for matcher in self._matchers.values():
            matcher.begin(min(max(share, 0.01), 0.99))
        for check in self._counts.values():
            check.begin(share)

    def count(self, arm: Arm, what: str = "requests") -> None:
        """Counts a unit that an arm was given, for the check of the split.

        Args:
            arm: Which.
            what: Of which count; `requests` when they are assigned, say `feedback` when a value
                arrives: a difference there means that one arm's feedback is selected.
        """
        if what not in self._counts:
            self._counts[what] = ShareCheck(self.share)
        self._counts[what].add(arm)

    def recount(self) -> None:
        """Begins the checks of the split anew: a person has looked at it and lets it go on.

        What they found before would stand for ever otherwise.
        """
        self._counts = {}

    def update(self, arm: Arm, metric: str, value: float) -> None:
        """Takes a value of a metric that has no shared source."""
        self.observe(arm, {metric: value})

    def observe(self, arm: Arm, values: Mapping[str, float]) -> None:
        """Takes the values of one answer: all metrics of one source.

        Raises:
            ValueError: They are not; or a value is not a number. Nothing was taken.
        """
        metrics = self._together(values)
        scores = tuple(metric.score(values[metric.name]) for metric in metrics)
        origin = metrics[0].origin
        block = self._matchers[origin].add(arm, scores)
        if block is not None:
            self._settle_block(metrics, block)
            self._judge_guardrails(origin)

    def update_pair(self, metric: str, champion: float, candidate: float) -> None:
        """Takes the values of both arms' answers to one prompt."""
        self.observe_pair({metric: champion}, {metric: candidate})

    def observe_pair(self, champion: Mapping[str, float], candidate: Mapping[str, float]) -> None:
        """Takes the values of both arms' answers to one prompt: all metrics of one source.

        Raises:
            ValueError: As `observe`.
        """
        metrics = self._together(champion)
        if set(candidate) != set(champion):
            raise ValueError("a pair's two answers must have values of the same metrics")
        scores = [
            (metric.score(champion[metric.name]), metric.score(candidate[metric.name]))
            for metric in metrics
        ]
        for metric, (of_champion, of_candidate) in zip(metrics, scores, strict=True):
            self._comparisons[metric.name].settle_pair(of_champion, of_candidate)
        self._judge_guardrails(metrics[0].origin)

    def _together(self, values: Mapping[str, float]) -> tuple[MetricSpec, ...]:
        metrics = next(
            (
                metrics
                for metrics in self._origins.values()
                if {metric.name for metric in metrics} == set(values)
            ),
            None,
        )
        if metrics is None:
            sources = [[metric.name for metric in metrics] for metrics in self._origins.values()]
            raise ValueError(
                f"values of {sorted(values)}: give all metrics of one source, one of {sources}"
            )
        return metrics

    def _settle_block(self, metrics: tuple[MetricSpec, ...], block: Block) -> None:
        for index, metric in enumerate(metrics):
            self._comparisons[metric.name].settle_block(
                [scores[index] for scores in block.scores[Arm.CHAMPION]],
                [scores[index] for scores in block.scores[Arm.CANDIDATE]],
            )

    def _judge_guardrails(self, origin: str) -> None:
        """At each settlement, so that what is found does not depend on when somebody looks.

        What a source finds first stands: e-BH bounds the false share of one such set, not of all
        sets over time together.
        """
        if any(metric.name in self._harmed for metric in self._origins[origin]):
            return
        log_values = {
            metric.name: self._comparisons[metric.name].tests[Question.HARM].log_e
            for metric in self._origins[origin]
            if metric is not self.config.primary
        }
        among = len(self.config.guardrails)
        if log_values:
            found = rejected(log_values, among, self.config.levels.guardrails)
            self._harmed.update(dict.fromkeys(sorted(found)))

    def evidence(self) -> Evidence:
        """What is known now."""
        levels = self.config.levels
        limit = -math.log(levels.shares)
        return Evidence(
            metrics={name: self._evidence(name) for name in self._comparisons},
            harmed=tuple(self._harmed),
            mismatched=tuple(what for what, check in self._counts.items() if check.peak >= limit),
            dropped={
                origin: matcher.dropped
                for origin, matcher in self._matchers.items()
                if matcher.dropped
            },
        )

    def _evidence(self, name: str) -> MetricEvidence:
        comparison, levels = self._comparisons[name], self.config.levels
        harm = levels.harm
        if name != self.config.primary.name:
            harm = levels.guardrails / len(self.config.guardrails)
        tests = {}
        for question, test in comparison.tests.items():
            level = harm if question is Question.HARM else levels.promote
            tests[question] = Reading(test.log_e, test.peak, -math.log(level))
        return MetricEvidence(
            champion=comparison.count(Arm.CHAMPION),
            candidate=comparison.count(Arm.CANDIDATE),
            pairs=comparison.pairs.count,
            difference=comparison.difference,
            tests=tests,
        )

    def decide(self, *, time_is_up: bool = False) -> Verdict:
        """The verdict now; see `verdict.decide`."""
        return decide(self.config, self.evidence(), time_is_up=time_is_up)

    def state(self) -> dict[str, Any]:
        """JSON; `from_state` takes it back."""
        return {
            "version": VERSION,
            "config": self.config.to_json(),
            "share": self.share,
            "comparisons": {name: each.state() for name, each in self._comparisons.items()},
            "matchers": {origin: each.state() for origin, each in self._matchers.items()},
            "counts": {what: each.state() for what, each in self._counts.items()},
            "harmed": list(self._harmed),
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Goes on from a state.

        Raises:
            ValueError: It is of another version of this code.
        """
        if state["version"] != VERSION:
            raise ValueError(f"the canary's state has version {state['version']}, not {VERSION}")
        found = cls(CanaryConfig.from_json(state["config"]))
        found.share = state["share"]
        for name, comparison in found._comparisons.items():
            comparison.restored(state["comparisons"][name])
        found._matchers = {
            origin: Matcher.from_state(each) for origin, each in state["matchers"].items()
        }
        found._counts = {
            what: ShareCheck.from_state(each) for what, each in state["counts"].items()
        }
        found._harmed = dict.fromkeys(state["harmed"])
        return found
