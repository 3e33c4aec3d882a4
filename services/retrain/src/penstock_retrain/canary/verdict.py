"""From evidence to a verdict. Pure.

The order is of caution: harm, then a split that is not to be trusted, then values that are missing,
then what is to be shown. What was not shown is never promoted, at whatever time.
"""

from __future__ import annotations

import dataclasses
import math
from enum import StrEnum
from typing import Any

from penstock_retrain.canary.comparison import Question
from penstock_retrain.canary.config import CanaryConfig, Goal, MetricSpec

__all__ = ["Decision", "Evidence", "MetricEvidence", "Reading", "Verdict", "decide"]


class Decision(StrEnum):
    """What to do with the candidate."""

    PROMOTE = "promote"
    ROLL_BACK = "roll_back"
    HOLD = "hold"  # go on and look again
    INCONCLUSIVE = "inconclusive"  # hold, and ask a person


@dataclasses.dataclass(frozen=True)
class Reading:
    """One test's state.

    Attributes:
        log_e: Natural logarithm of the e-value now.
        peak: The largest so far; what is compared with the threshold, by Ville's inequality.
        threshold: ln(1 / level). A guardrail's harm at most needs this: e-BH lowers it for each
            other guardrail of its source that is harmed.
    """

    log_e: float
    peak: float
    threshold: float

    @property
    def crossed(self) -> bool:
        """Whether the null was rejected."""
        return self.peak >= self.threshold


@dataclasses.dataclass(frozen=True)
class MetricEvidence:
    """One metric's state; means and differences are of scores, more is better.

    Attributes:
        champion: Settled values of the champion, pairs included; likewise `candidate`.
        candidate: See `champion`.
        pairs: Answers of both to one prompt among them.
        difference: Candidate minus champion; None before any value settled.
        tests: By question.
    """

    champion: int
    candidate: int
    pairs: int
    difference: float | None
    tests: dict[Question, Reading]


@dataclasses.dataclass(frozen=True)
class Evidence:
    """All that a verdict rests on.

    Attributes:
        metrics: By name.
        harmed: Guardrails that e-BH found harmed when it first found any of their source.
        mismatched: Counts whose split is not as declared.
        dropped: Values that found no place in a block, by source: the split of the source's
            values was far from any that was expected.
    """

    metrics: dict[str, MetricEvidence]
    harmed: tuple[str, ...] = ()
    mismatched: tuple[str, ...] = ()
    dropped: dict[str, int] = dataclasses.field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """JSON, for reports and model cards."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A decision and why.

    Attributes:
        decision: What to do.
        reasons: For people; the first one decided.
        evidence: What it rests on.
    """

    decision: Decision
    reasons: tuple[str, ...]
    evidence: Evidence

    def to_json(self) -> dict[str, Any]:
        """JSON, for reports and model cards."""
        return {
            "decision": self.decision.value,
            "reasons": list(self.reasons),
            "evidence": self.evidence.to_json(),
        }


def decide(config: CanaryConfig, evidence: Evidence, *, time_is_up: bool = False) -> Verdict:
    """The verdict.

    Args:
        config: What was asked.
        evidence: What is known.
        time_is_up: Nobody will wait any longer: what would be held is inconclusive.
    """
    if reasons := _harms(config, evidence):
        return Verdict(Decision.ROLL_BACK, reasons, evidence)
    if evidence.mismatched:
        reasons = tuple(
            f"the split of {name} is not as declared: the arms cannot be compared"
            for name in evidence.mismatched
        )
        return Verdict(Decision.INCONCLUSIVE, reasons, evidence)
    missing = _missing(config, evidence)
    if not missing:
        return Verdict(Decision.PROMOTE, (_shown(config, evidence),), evidence)
    reached = evidence.metrics[config.primary.name].candidate
    if reached >= config.horizon:
        ends = f"the horizon of {config.horizon} values of {config.primary.name} is reached"
    elif time_is_up:
        ends = "the time is up"
    else:
        return Verdict(Decision.HOLD, missing, evidence)
    return Verdict(Decision.INCONCLUSIVE, (f"{ends}; {missing[0]}", *missing[1:]), evidence)


def _harms(config: CanaryConfig, evidence: Evidence) -> tuple[str, ...]:
    found = []
    primary = evidence.metrics[config.primary.name]
    if primary.tests[Question.HARM].crossed:
        level = config.levels.harm
        found.append(_line(config.primary, primary, Question.HARM, f"at level {level:g}"))
    for metric in config.guardrails:
        if metric.name in evidence.harmed:
            level = config.levels.guardrails
            among = f"among {len(config.guardrails)} guardrails at level {level:g} (e-BH)"
            found.append(_line(metric, evidence.metrics[metric.name], Question.HARM, among))
    return tuple(found)


def _missing(config: CanaryConfig, evidence: Evidence) -> tuple[str, ...]:
    """What a promotion still needs: what was to be shown first, then values."""
    found = []
    for metric in config.metrics:
        question = _to_show(config, metric)
        if question is None:
            continue
        known = evidence.metrics[metric.name]
        if not known.tests[question].crossed:
            found.append(_line(metric, known, question, "not shown"))
    for metric in config.metrics:
        known = evidence.metrics[metric.name]
        count = min(known.champion, known.candidate)
        if count < config.minimum:
            found.append(f"{metric.name}: {count} values an arm of {config.minimum}")
    return tuple(found)


def _to_show(config: CanaryConfig, metric: MetricSpec) -> Question | None:
    if metric is config.primary:
        gain = config.goal is Goal.GAIN
        return Question.GAIN if gain else Question.NON_INFERIORITY
    return Question.NON_INFERIORITY if metric.prove else None


def _shown(config: CanaryConfig, evidence: Evidence) -> str:
    question = _to_show(config, config.primary)
    assert question is not None
    known = evidence.metrics[config.primary.name]
    return _line(config.primary, known, question, f"at level {config.levels.promote:g}")


def _line(metric: MetricSpec, known: MetricEvidence, question: Question, how: str) -> str:
    claim = {
        Question.HARM: f"worse by more than {metric.harm_margin:g}",
        Question.NON_INFERIORITY: f"worse by less than {metric.margin:g}",
        Question.GAIN: "better",
    }[question]
    difference = "unknown" if known.difference is None else f"{known.difference:+.4f}"
    e_value = math.exp(min(known.tests[question].peak, 700.0))
    return (
        f"{metric.name}: {claim}, {how} (difference {difference}, e-value up to {e_value:.3g}, "
        f"{known.champion} and {known.candidate} values)"
    )
