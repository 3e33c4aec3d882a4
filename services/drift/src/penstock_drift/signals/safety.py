"""Personal data, abuse, and attempts to turn the model against its instructions.

Hits of pattern packs: made to see a rate change, not to judge a single text.
"""

from __future__ import annotations

import re

from penstock_drift.signals.declared import Declaration, Origin
from penstock_drift.signals.facts import MAX_TEXT, Facts
from penstock_drift.signals.packs import pack
from penstock_drift.values import Kind, SignalType

__all__ = ["PII_VERSION", "SIGNALS", "has_personal_data"]

# Rises with every change of the expressions below, as a pack's does.
PII_VERSION = 1
_EMAIL = re.compile(r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{2,24}){1,4}")
_PHONE = re.compile(
    r"(?<![\w.])(?:\+|00)[1-9]\d{0,2}[ ./-]?(?:\(\d{1,4}\)[ ./-]?)?\d(?:[ ./-]?\d){6,12}(?!\w)"
    r"|(?<![\w.-])\(?\d{3}\)?[ .-]\d{3}[ .-]\d{4}(?![\w-])"
)
_CARD = re.compile(r"(?<![\w-])\d(?:[ -]?\d){12,18}(?![\w-])")
_IBAN = re.compile(r"[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b")
_SSN = re.compile(r"(?<![\w-])(?!000|666|9\d\d)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\w-])")
_SECRET = re.compile(
    r"\b(?:AKIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36}|sk-[A-Za-z0-9_-]{20,}"
    r"|xox[abp]-[A-Za-z0-9-]{10,})|-----BEGIN (?:\w+ )?PRIVATE KEY-----"
)
# What every number has that is looked for; it spares texts without one the search.
_DIGITS = re.compile(r"\d(?:[ ()./-]{0,3}\d){7}")
_SECRETS = ("AKIA", "gh", "sk-", "xox", "-----BEGIN")


def has_personal_data(text: str) -> bool:
    """Whether a text holds an e-mail address, a phone or card number, an IBAN, an SSN or a key.

    Cards and IBANs count with their check digits only.
    """
    if "@" in text and _EMAIL.search(text):
        return True
    if any(mark in text for mark in _SECRETS) and _SECRET.search(text):
        return True
    if any(_mod_97(match.group()) for match in _IBAN.finditer(text)):
        return True
    if not _DIGITS.search(text):
        return False
    return bool(
        _PHONE.search(text)
        or _SSN.search(text)
        or any(_luhn(match.group()) for match in _CARD.finditer(text))
    )


def _luhn(number: str) -> bool:
    """ISO/IEC 7812-1, annex B."""
    digits = [int(c) for c in number if c.isdecimal()]
    if len(set(digits)) == 1:
        return False
    doubled = [d if i % 2 == 0 else d * 2 - 9 * (d > 4) for i, d in enumerate(reversed(digits))]
    return sum(doubled) % 10 == 0


def _mod_97(iban: str) -> bool:
    """ISO 13616: the country and check digits moved to the end, letters as 10 to 35."""
    plain = iban.replace(" ", "")
    if not (15 <= len(plain) <= 34 and plain.isascii()):
        return False
    return int("".join(str(int(c, 36)) for c in plain[4:] + plain[:4])) % 97 == 1


def pii(facts: Facts) -> float | None:
    """Whether the answer holds personal data."""
    return float(has_personal_data(facts.text)) if facts.text else None


def pii_prompt(facts: Facts) -> float | None:
    """Whether the question does."""
    return float(has_personal_data(facts.prompt)) if facts.prompt else None


def toxicity(facts: Facts) -> float | None:
    """Whether the answer holds abuse."""
    return float(pack("toxic").found_in(facts.text, facts.word_set)) if facts.text else None


def toxicity_prompt(facts: Facts) -> float | None:
    """Whether the question does."""
    return (
        float(pack("toxic").found_in(facts.prompt, facts.prompt_word_set)) if facts.prompt else None
    )


def injection(facts: Facts) -> float | None:
    """How much the question, or a passage, looks like an attempt to redirect the model."""
    if facts.question is None or facts.prompt is None:
        return None
    score, left = pack("injection").score(facts.prompt, facts.prompt_word_set), MAX_TEXT
    for passage in facts.question.passages:
        if left <= 0:
            break
        text = passage.text[:left]
        score = max(score, pack("injection").score(text, facts.passage_words))
        left -= len(passage.text)
    return score


SIGNALS = (
    Declaration(
        "pii", SignalType.BINARY, Kind.OUTPUT, "Answers with personal data in them.",
        higher_is_worse=True, draw=pii,
    ),
    Declaration(
        "pii_prompt", SignalType.BINARY, Kind.INPUT, "Questions with personal data in them.",
        origin=Origin.REQUEST, draw=pii_prompt,
    ),
    Declaration(
        "toxicity", SignalType.BINARY, Kind.OUTPUT, "Answers with abuse in them.",
        higher_is_worse=True, draw=toxicity,
    ),
    Declaration(
        "toxicity_prompt", SignalType.BINARY, Kind.INPUT, "Questions with abuse in them.",
        origin=Origin.REQUEST, draw=toxicity_prompt,
    ),
    Declaration(
        "injection", SignalType.BOUNDED, Kind.INPUT,
        "How much questions and passages look like instructions against the instructions.",
        origin=Origin.REQUEST, higher_is_worse=True, draw=injection,
    ),
)  # fmt: skip
