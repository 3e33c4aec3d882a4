"""Finds personal data and secrets in text, and takes them out: patterns with check digits. Pure.

Patterns find what has a form: addresses, numbers, keys. Names and what a sentence tells of a person
have none; whoever must keep those out says so of the source.
"""

from __future__ import annotations

import re
from collections.abc import Callable

__all__ = ["PERSONAL_DATA_VERSION", "has_personal_data", "redact"]

# Rises with every change of the expressions below: findings across two versions compare two
# measures.
PERSONAL_DATA_VERSION = 1

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
# A key's own lines go with its heading; without an end, all that follows does.
_SECRET_TEXT = re.compile(
    r"-----BEGIN (?:\w+ )?PRIVATE KEY-----(?:.*?-----END (?:\w+ )?PRIVATE KEY-----|.*)"
    rf"|{_SECRET.pattern}",
    re.DOTALL,
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


def redact(text: str) -> str:
    """The text with what `has_personal_data` finds replaced by its kind: `[email]`, `[phone]`.

    Idempotent; what it returns has no personal data by the same patterns.
    """
    # A mark beside what is left may make a new hit. Each round takes out an @, digits or a key, and
    # a mark has none, so it ends.
    while has_personal_data(text):
        for name, pattern, holds in _KINDS:
            text = pattern.sub(_replacing(f"[{name}]", holds), text)
    return text


def _replacing(mark: str, holds: Callable[[str], bool]) -> Callable[[re.Match[str]], str]:
    return lambda match: mark if holds(match.group()) else match.group()


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


def _always(_: str) -> bool:
    return True


# In this order: a longer form first, since a part of it may look like another.
_KINDS: tuple[tuple[str, re.Pattern[str], Callable[[str], bool]], ...] = (
    ("secret", _SECRET_TEXT, _always),
    ("email", _EMAIL, _always),
    ("iban", _IBAN, _mod_97),
    ("card", _CARD, _luhn),
    ("ssn", _SSN, _always),
    ("phone", _PHONE, _always),
)
