"""Which language questions and answers are in."""

from __future__ import annotations

import functools
import re
from typing import Any

from penstock_drift.records.values import Kind, SignalType
from penstock_drift.signals.declared import Declaration, Origin
from penstock_drift.signals.facts import Facts

__all__ = ["SIGNALS", "UNDETERMINED", "language_of"]

# ISO 639-2's code for it.
UNDETERMINED = "und"
# Of a longer text the start tells.
REACH = 120
# Shorter texts are guesswork: "Yes." is Kabyle to the model.
MIN_LETTERS = 20
MIN_PROBABILITY = 0.7
_LETTER = re.compile(r"[^\W\d_]")


@functools.cache
def _identifier() -> Any:
    # Takes half a second, so only once somebody asks. The model lies in the package.
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def language_of(text: str) -> str:
    """ISO 639-1 code of a text's language; `und` where the text is too short or mixed to tell."""
    return _language(text[:REACH])


@functools.lru_cache(maxsize=16)  # several signals ask for the same two texts
def _language(start: str) -> str:
    if len(_LETTER.findall(start)) < MIN_LETTERS:
        return UNDETERMINED
    language, probability = _identifier().classify(start)
    return str(language) if probability >= MIN_PROBABILITY else UNDETERMINED


def prompt_language(facts: Facts) -> str | None:
    """Of the question."""
    return language_of(facts.prompt) if facts.prompt else None


def answer_language(facts: Facts) -> str | None:
    """Of the answer; a JSON document has none."""
    return language_of(facts.text) if facts.text and facts.json is None else None


def language_mismatch(facts: Facts) -> float | None:
    """Whether question and answer are in two languages; absent where either is not known."""
    asked, answered = _known(prompt_language(facts)), _known(answer_language(facts))
    return float(asked != answered) if asked and answered else None


def _known(language: str | None) -> str | None:
    return None if language == UNDETERMINED else language


SIGNALS = (
    Declaration(
        "prompt_language", SignalType.CATEGORY, Kind.INPUT, "Languages of questions.",
        origin=Origin.REQUEST, draw=prompt_language,
    ),
    Declaration(
        "answer_language", SignalType.CATEGORY, Kind.OUTPUT, "Languages of answers.",
        draw=answer_language,
    ),
    Declaration(
        "language_mismatch", SignalType.BINARY, Kind.OUTPUT,
        "Answers in another language than the question.",
        origin=Origin.JOINED, higher_is_worse=True, draw=language_mismatch,
    ),
)  # fmt: skip
