"""The right answer to a request, from what people said of the one it got. Pure."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from penstock.labels import same
from penstock_retrain.dataset.examples import LeftOut
from penstock_retrain.dataset.policy import DatasetPolicy, LabelSource
from penstock_retrain.dataset.rows import FeedbackRow

__all__ = ["Labelled", "apply_label", "label_of"]


@dataclasses.dataclass(frozen=True, slots=True)
class Labelled:
    """A right answer.

    Attributes:
        target: The answer; empty where a teacher is to be asked.
        rejected: The answer that was given, where it is another one.
        source: Where the right one comes from.
    """

    target: str
    rejected: str | None
    source: LabelSource


def label_of(
    answer: str,
    feedback: Sequence[FeedbackRow],
    policy: DatasetPolicy,
    *,
    cut_off: bool = False,
) -> Labelled | LeftOut:
    """The right answer by the most trusted source that has one, or why there is none.

    Args:
        answer: The answer that was given.
        feedback: What was said of it, the newest last: of each kind the newest counts.
        policy: Which sources count, and in which order.
        cut_off: The answer was ended by its length: it teaches no end, whatever its score.
    """
    reason = LeftOut.UNLABELLED
    for source in policy.labels:
        target: str | None = None
        match source:
            case LabelSource.CORRECTION:
                target = _newest(feedback, "correction")
            case LabelSource.LABEL:
                label = _newest(feedback, "label")
                if label is not None:
                    target = apply_label(answer, label, policy.label_field)
                    reason = LeftOut.LABEL_UNUSABLE if target is None else reason
            case LabelSource.SCORE:
                score = _newest(feedback, "score")
                if score is not None and score >= policy.accept_score:
                    target = None if cut_off else answer
                    reason = LeftOut.CUT_OFF if cut_off else reason
            case LabelSource.TEACHER:
                return Labelled("", None, source)
        if target and target.strip():
            differs = " ".join(target.split()) != " ".join(answer.split())
            return Labelled(target, answer if differs and answer.strip() else None, source)
    return reason


def apply_label(answer: str, label: str, field: str) -> str | None:
    """The answer as the label wants it; None where the label does not say what that is.

    A label that is a JSON object corrects its fields of an answer that is one. A plain label is
    the whole answer, or one field of a JSON answer: `field`, or any that has the value already.
    Whatever is right stays as it was written, to the character. A label whose values no JSON text
    can hold says nothing.
    """
    wanted, given = _object(label), _object(answer)
    if wanted is None and given is None:
        return None if field else label
    if wanted is None:
        assert given is not None
        if not field:
            return answer if any(same(value, label) for value in given.values()) else None
        wanted = {field: _like(given.get(field), label)}
    written = _written(wanted)
    if given is None or written is None:
        return written
    changed = {name: value for name, value in wanted.items() if not same(given.get(name), value)}
    if not changed:
        return answer
    spaced = '": ' in answer
    separators = (", ", ": ") if spaced else (",", ":")
    return _written({**given, **changed}, separators)


def _newest(feedback: Sequence[FeedbackRow], field: str) -> Any:
    values = (getattr(each, field) for each in reversed(feedback))
    return next((value for value in values if value is not None), None)


def _object(text: str) -> dict[str, Any] | None:
    stripped = text.strip()
    if not stripped.startswith("{"):
        return None
    try:
        found = json.loads(stripped)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and found else None


def _written(value: dict[str, Any], separators: tuple[str, str] | None = None) -> str | None:
    r"""As JSON; None where a number is not finite, or a text has half a character (`\ud800`)."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=separators)
        text.encode()
    except (ValueError, RecursionError):
        return None
    return text


def _like(before: Any, label: str) -> Any:
    """The label as the kind of value that stands there: `3` where a number does."""
    if isinstance(before, str) or before is None:
        return label
    try:
        found = json.loads(label)
    except (ValueError, RecursionError):
        return label
    return found if isinstance(found, (bool, int, float)) else label
