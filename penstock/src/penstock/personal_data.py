"""Finds personal data and secrets in text, and takes them out: patterns with check digits. Pure.

Patterns find what has a form: addresses, numbers, keys. Names and what a sentence tells of a person
have none; whoever must keep those out says so of the source.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

__all__ = ["PERSONAL_DATA_VERSION", "has_personal_data", "redact"]

Span = tuple[int, int]
# The spans of one kind in a text, in order, none over another; in time linear in its length.
Find = Callable[[str], Iterator[Span]]

# Rises with every change of the expressions below: findings across two versions compare two
# measures.
PERSONAL_DATA_VERSION = 2

_EMAIL = re.compile(r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{2,24}){1,4}")
_PHONE = re.compile(
    r"(?<![\w.])(?:\+|00)[1-9]\d{0,2}[ ./-]?(?:\(\d{1,4}\)[ ./-]?)?\d(?:[ ./-]?\d){6,12}(?!\w)"
    r"|(?<![\w.-])\(?\d{3}\)?[ .-]\d{3}[ .-]\d{4}(?![\w-])"
)
# Where a card number or an IBAN may begin, and as much as one may take: `_card_end` and `_iban_end`
# tell where it ends.
_CARD = re.compile(r"\d(?<![\w-].)(?=((?:[ -]?\d){12,18}))")
_IBAN = re.compile(
    r"[A-Za-z]{2}(?:(?<![A-Za-z0-9]..)|(?<=[Ii][Bb][Aa][Nn]..))[0-9]{2}"
    r"(?=((?:[ -]?[A-Za-z0-9]){11,29}))"
)
# How cards are written, and the first digits and lengths of networks: Visa; Mastercard and Mir;
# American Express; Diners Club; JCB; Maestro, Discover, UnionPay and RuPay; national ones.
_WRITTEN = re.compile(
    r"\d{13,19}|\d{4}([ -])\d{4}\1\d{4}\1\d{1,4}(?:\1\d{1,3})?|\d{4}([ -])\d{6}\2\d{4,5}"
)
_NETWORK = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|(?:5[1-5]|2[2-7])\d{14}|3[47]\d{13}|3[0689]\d{12,17}|35\d{14,17}"
    r"|(?:5[06-8]|6\d)\d{11,17}|(?:8[126]|9[0178])\d{14,17}"
)
# ISO 13616: the registry's countries, and those that use IBANs without being in it.
_IBAN_LENGTHS = {
    country: length
    for length, countries in {
        15: "NO",
        16: "BE",
        18: "DK FI FK FO GL NL SD",
        19: "MK SI",
        20: "AT BA EE KZ LT LU MN XK",
        21: "CH HR LI LV",
        22: "BG BH CR DE GB GE IE ME RS VA",
        23: "AE GI IL IQ OM SO TL",
        24: "AD CZ ES MD PK RO SA SE SK TN VG",
        25: "AO CV GW LY MZ PT ST",
        26: "DZ IR IS TR",
        27: "BI CF CG CM DJ FR GA GQ GR IT KM MC MG MR SM TD",
        28: "AL AZ BF BJ BY CI CY DO GT HN HU LB MA ML NE NI PL SN SV TG",
        29: "BR EG PS QA UA",
        30: "JO KW MU YE",
        31: "MT SC",
        32: "LC",
        33: "RU",
    }.items()
    for country in countries.split()
}
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
# Spaces and hyphens that do not break a line, as pages and documents write numbers.
_BREAKING = {**dict.fromkeys(map(ord, "\u00a0\u2007\u2009\u202f"), " "), ord("\u2011"): "-"}
_SECRETS = ("AKIA", "gh", "sk-", "xox", "-----BEGIN")


def has_personal_data(text: str) -> bool:
    """Whether a text holds an e-mail address, a phone or card number, an IBAN, an SSN or a key.

    Cards and IBANs count with their check digits only.
    """
    text = _breaking(text)
    if "@" in text and _EMAIL.search(text):
        return True
    if any(mark in text for mark in _SECRETS) and _SECRET.search(text):
        return True
    if any(_ibans(text)):
        return True
    if not _DIGITS.search(text):
        return False
    return bool(_PHONE.search(text) or _SSN.search(text) or any(_cards(text)))


def redact(text: str) -> str:
    """The text with what `has_personal_data` finds replaced by its kind: `[email]`, `[phone]`.

    Idempotent; what it returns has no personal data by the same patterns.
    """
    # A mark beside what is left may make a new hit. Each round takes out an @, digits or a key, and
    # a mark has none, so it ends.
    while has_personal_data(text):
        for name, find in _KINDS:
            text = _marked(text, f"[{name}]", find)
    return text


def _marked(text: str, mark: str, find: Find) -> str:
    pieces, past = [], 0
    for start, end in find(_breaking(text)):
        pieces += [text[past:start], mark]
        past = end
    return "".join([*pieces, text[past:]])


def _breaking(text: str) -> str:
    """The text with ordinary spaces and hyphens, each character where it was."""
    return text if text.isascii() else text.translate(_BREAKING)


def _matches(pattern: re.Pattern[str]) -> Find:
    return lambda text: (match.span() for match in pattern.finditer(text))


def _cards(text: str) -> Iterator[Span]:
    past = -1
    for match in _CARD.finditer(text):
        start, near = match.start(), match[0] + match[1]
        alone = start == past + 1 or not re.fullmatch(r"\d ", text[max(0, start - 2) : start])
        if start < past or not (alone or _WRITTEN.match(near)):
            continue
        end = _card_end(text, start, near, alone=alone)
        if end is not None:
            yield start, end
            past = end


def _card_end(text: str, start: int, near: str, *, alone: bool) -> int | None:
    """Where the longest card number from there ends.

    All the digits there are count however they are grouped. A part of them, with a date or another
    number beside it, does as networks number and write cards: of all numbers one in ten has a right
    check digit by chance.
    """
    ends = [at for at, char in enumerate(near, 1) if char not in " -"]
    for end in reversed(ends[12:]):
        if re.match(r"[\w-]", text[start + end : start + end + 1]):
            continue
        digits = re.sub("[ -]", "", near[:end])
        written = _WRITTEN.fullmatch(near, 0, end) and _NETWORK.fullmatch(digits)
        if (alone or written) and _luhn(digits):
            return start + end
        alone = False
    return None


def _ibans(text: str) -> Iterator[Span]:
    past = 0
    for match in _IBAN.finditer(text):
        start = match.start()
        end = _iban_end(text, start, match[0] + match[1]) if start >= past else None
        if end is not None:
            yield start, end
            past = end


def _iban_end(text: str, start: int, near: str) -> int | None:
    """Where the IBAN from there ends; its country says how long it is."""
    length = _IBAN_LENGTHS.get(near[:2].upper(), len(near) + 1)
    ends = [at for at, char in enumerate(near, 1) if char not in " -"]
    if len(ends) < length:
        return None
    end = start + ends[length - 1]
    iban = re.sub("[ -]", "", near)[:length]
    # Words behind `SE10` and the like are no account numbers.
    digits = sum(char.isdecimal() for char in iban[4:])
    goes_on = re.match("[A-Za-z0-9]", text[end : end + 1])
    return end if not goes_on and 2 * digits > length - 4 and _mod_97(iban) else None


def _luhn(number: str) -> bool:
    """ISO/IEC 7812-1, annex B."""
    digits = [int(c) for c in number]
    if len(set(digits)) == 1:
        return False
    doubled = [d if i % 2 == 0 else d * 2 - 9 * (d > 4) for i, d in enumerate(reversed(digits))]
    return sum(doubled) % 10 == 0


def _mod_97(iban: str) -> bool:
    """ISO 13616: the country and check digits moved to the end, letters as 10 to 35."""
    return int("".join(str(int(c, 36)) for c in iban[4:] + iban[:4])) % 97 == 1


# In this order: a longer form first, since a part of it may look like another.
_KINDS: tuple[tuple[str, Find], ...] = (
    ("secret", _matches(_SECRET_TEXT)),
    ("email", _matches(_EMAIL)),
    ("iban", _ibans),
    ("card", _cards),
    ("ssn", _matches(_SSN)),
    ("phone", _matches(_PHONE)),
)
