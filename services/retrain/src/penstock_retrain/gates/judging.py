"""From answers to verdicts: every rule by a confidence bound. Pure.

Of k rules in all suites together and a level alpha:

- A rule is passed where the bound on its side, at level alpha, meets the threshold. A candidate
  that violates any rule passes all of them with probability at most alpha, however many there are:
  the intersection-union test needs no correction (Berger, "Multiparameter hypothesis testing and
  acceptance sampling", Technometrics 24 (1982), theorem 1).
- A rule is failed where the bound of the other side, at level alpha / k, misses the threshold. A
  candidate that violates none is failed by any with probability at most alpha (Bonferroni).
- Between the two there are not enough examples. That is no pass.

Examples count as drawn independently from what the model is asked; where they are picked by hand,
the bounds tell how much their number alone can show.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum

from penstock_retrain.gates import bounds
from penstock_retrain.gates.errors import GateError
from penstock_retrain.gates.examples import Answer, Contender, Example
from penstock_retrain.gates.loaded import LoadedSuite
from penstock_retrain.gates.metrics.declared import Metric, Scale
from penstock_retrain.gates.suite import Rule, Than, metric_of

__all__ = ["Answered", "Row", "Verdict", "Worst", "judge"]

WORST = 5


class Verdict(StrEnum):
    """What the examples say of a rule."""

    PASS = "pass"  # noqa: S105 - no password
    FAIL = "fail"
    NOT_ENOUGH = "not enough examples"


@dataclasses.dataclass(frozen=True)
class Worst:
    """An example that a rule's verdict suffered from.

    Attributes:
        id: The example's.
        score: The candidate's score, or what it gained on what it is compared with.
        asked: The question's last words.
        expected: The right answer, None where nobody knows it.
        answered: The candidate's.
        other: The answer it is compared with; None where it is not.
    """

    id: str
    score: float
    asked: str
    expected: object
    answered: str
    other: str | None = None


@dataclasses.dataclass(frozen=True)
class Row:
    """A rule's verdict.

    Attributes:
        suite: The suite.
        metric: What was measured; compared metrics say with what.
        slice: On which examples.
        rule: What is asked for, in words.
        n: Examples, or pairs, that count.
        estimate: The mean; None without examples.
        low: Lower bound of it; None without examples.
        high: Upper bound.
        threshold: What the bound that decides is held against.
        decides: Which bound passes the rule: `low` or `high`.
        verdict: What came of it.
        reason: Why, where it is no pass.
        worst: The examples that told most against the candidate.
    """

    suite: str
    metric: str
    slice: str
    rule: str
    n: int
    estimate: float | None
    low: float | None
    high: float | None
    threshold: float
    decides: str
    verdict: Verdict
    reason: str = ""
    worst: tuple[Worst, ...] = ()


@dataclasses.dataclass(frozen=True)
class Answered:
    """A suite with the contenders' answers.

    Attributes:
        loaded: The suite.
        answers: By the contender's digest and the question's.
    """

    loaded: LoadedSuite
    answers: Mapping[tuple[str, str], Answer]


@dataclasses.dataclass(frozen=True)
class _Value:
    """One example's part of a mean."""

    example: Example
    score: float
    answer: Answer
    other: Answer | None = None


def judge(
    suites: Sequence[Answered], candidate: Contender, champion: Contender | None, alpha: float
) -> list[Row]:
    """The verdict on every rule.

    Args:
        suites: With the answers of both.
        candidate: Who is judged.
        champion: Whom it is compared with; None where there is none, which passes no rule that
            compares.
        alpha: Level of the errors above, in (0, 1/2].

    Raises:
        GateError: An answer is missing, or a metric's score is not on its scale.
    """
    rules = sum(len(each.loaded.suite.rules) for each in suites)
    judged = []
    for each in suites:
        for rule in each.loaded.suite.rules:
            values = _values(each, rule, candidate, champion)
            judged.append(_row(each.loaded.suite.suite, rule, values, alpha, rules, champion))
    return judged


def _row(
    suite: str,
    rule: Rule,
    values: Sequence[_Value],
    alpha: float,
    rules: int,
    champion: Contender | None,
) -> Row:
    downwards = rule.at_most is not None
    threshold = _threshold(rule)
    scores = [value.score for value in values]
    n = len(scores)
    estimate = low = high = None
    verdict, reason = Verdict.NOT_ENOUGH, ""
    if n:
        estimate = math.fsum(scores) / n
        levels = (alpha / rules, alpha) if downwards else (alpha, alpha / rules)
        low, high = _bounds(rule, scores, *levels)
        shown, refuted = (
            (high <= threshold, low > threshold)
            if downwards
            else (low >= threshold, high < threshold)
        )
        verdict = Verdict.PASS if shown else Verdict.FAIL if refuted else Verdict.NOT_ENOUGH
        if verdict is Verdict.NOT_ENOUGH:
            reason = _wanting(estimate, high if downwards else low, threshold, n, downwards)
    elif rule.paired and rule.than is Than.CHAMPION and champion is None:
        reason = "there is no champion to compare with"
    else:
        reason = f"no example of the slice {rule.slice} has what {rule.metric} needs"
    return Row(
        suite=suite,
        metric=f"{rule.metric}_vs_{rule.than}" if rule.paired else rule.metric,
        slice=rule.slice,
        rule=_said(rule),
        n=n,
        estimate=estimate,
        low=low,
        high=high,
        threshold=threshold,
        decides="high" if downwards else "low",
        verdict=verdict,
        reason=reason,
        worst=tuple(_worst(rule, values)),
    )


def _values(
    suite: Answered, rule: Rule, candidate: Contender, champion: Contender | None
) -> list[_Value]:
    if rule.paired and rule.than is Than.CHAMPION and champion is None:
        return []
    metric = metric_of(rule)
    originals = {each.id: each for each in suite.loaded.examples if not each.variant}
    found = []
    # An order that does not depend on the answers, nor on how a file is sorted.
    for example in sorted(suite.loaded.sliced(rule.slice), key=_shuffled):
        answer = _answer(suite, candidate, example)
        own = _scored(rule, metric, example, answer)
        if own is None:
            continue
        if not rule.paired:
            found.append(_Value(example, own, answer))
            continue
        asked, other = example, candidate
        if rule.than is Than.ORIGINAL:
            asked = originals[example.origin]
        elif champion is not None:
            other = champion
        beside = _answer(suite, other, asked)
        theirs = _scored(rule, metric, asked, beside)
        if theirs is not None:
            found.append(_Value(example, _compared(rule, own, theirs), answer, beside))
    return found


def _answer(suite: Answered, contender: Contender, example: Example) -> Answer:
    found = suite.answers.get((contender.digest, example.digest))
    if found is None:
        raise GateError(
            f"{contender.name} gave no answer to {example.id} of {suite.loaded.suite.suite}: run "
            "the gates again, what was answered is kept"
        )
    return found


def _scored(rule: Rule, metric: Metric, example: Example, answer: Answer) -> float | None:
    score = metric.score(example, answer)
    if score is None:
        return None
    scale = rule.declared.scale
    fits = {
        Scale.YES_NO: score in (0.0, 1.0),
        Scale.SHARE: 0.0 <= score <= 1.0,
        Scale.AMOUNT: 0.0 <= score < math.inf,
    }[scale]
    if not fits:
        raise GateError(f"{rule.metric} scores {score!r}, which is no {scale}: mend the metric")
    if rule.within is not None:
        return float(score <= rule.within)
    return min(score, rule.cap) if rule.cap is not None else score


def _compared(rule: Rule, own: float, other: float) -> float:
    if rule.within_times is not None:
        return float(own <= rule.within_times * other)
    return own - other if rule.more_is_better else other - own


def _bounds(rule: Rule, scores: Sequence[float], lower: float, upper: float) -> tuple[float, float]:
    """Lower and upper bound of the mean at a level each."""
    n = len(scores)
    if rule.yes_no and rule.no_worse_by is None:
        hits = round(sum(scores))
        return bounds.share_lower(hits, n, lower), bounds.share_upper(hits, n, upper)
    most = rule.cap or 1.0
    least = -most if rule.no_worse_by is not None else 0.0
    return (
        bounds.mean_lower(scores, lower, low=least, high=most),
        bounds.mean_upper(scores, upper, low=least, high=most),
    )


def _threshold(rule: Rule) -> float:
    for asked in (rule.at_least, rule.at_most):
        if asked is not None:
            return asked
    assert rule.no_worse_by is not None, "a rule without faults asks for one of the three"
    return 0.0 - rule.no_worse_by


def _said(rule: Rule) -> str:
    unit = f" {rule.declared.unit}" if rule.declared.unit else ""
    options = ", ".join(f"{name} {value}" for name, value in rule.options.items())
    what = f"{rule.metric} ({options})" if options else rule.metric
    if rule.within is not None:
        what = f"share of answers with {what} up to {rule.within:g}{unit}"
    elif rule.within_times is not None:
        what = f"share of answers with {what} up to {rule.within_times:g} times the {rule.than}'s"
    elif rule.cap is not None:
        what = f"{what}, capped at {rule.cap:g}{unit}"
    if rule.at_least is not None:
        return f"{what}: at least {rule.at_least:g}"
    if rule.at_most is not None:
        return f"{what}: at most {rule.at_most:g}{unit}"
    margin = rule.no_worse_by or 0.0
    if margin < 0:
        return f"{what}: better than the {rule.than}'s by at least {-margin:g}"
    return f"{what}: no worse than the {rule.than}'s by more than {margin:g}"


def _wanting(estimate: float, bound: float, threshold: float, n: int, downwards: bool) -> str:
    """What would have to be otherwise for a pass."""
    gap = threshold - estimate if downwards else estimate - threshold
    side = "above" if downwards else "below"
    said = f"its bound, {bound:.4g}, is {side} {threshold:.4g}"
    if gap <= 0:
        return f"{said}, and so is the estimate: more examples alone would not pass it"
    # Bounds close in with the root of n.
    needed = math.ceil(n * ((estimate - bound) / gap) ** 2)
    return f"{said}; about {_rounded(max(needed, n + 1))} examples like these would show it"


def _rounded(count: int) -> int:
    size: int = 10 ** max(0, len(str(count)) - 2)
    return math.ceil(count / size) * size


def _worst(rule: Rule, values: Sequence[_Value]) -> Iterator[Worst]:
    better = rule.more_is_better or rule.no_worse_by is not None
    ordered = sorted(values, key=lambda each: each.score if better else -each.score)
    # What is as good as it gets tells nothing against the candidate.
    fine = 0.0 if rule.no_worse_by is not None else 1.0
    for each in ordered[:WORST]:
        if better and each.score >= fine:
            return
        yield Worst(
            id=each.example.id,
            score=each.score,
            asked=each.example.said,
            expected=each.example.expected,
            answered=each.answer.text,
            other=each.other.text if each.other is not None else None,
        )


def _shuffled(example: Example) -> str:
    return hashlib.sha256(example.id.encode()).hexdigest()
