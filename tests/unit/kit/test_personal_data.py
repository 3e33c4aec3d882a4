"""Personal data goes out of a text, and what is no personal data stays."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.personal_data import has_personal_data, redact

CARD = "4111 1111 1111 1111"
IBAN = "DE89 3704 0044 0532 0130 00"
KEY = "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\n-----END RSA PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("write to ann.lee+x@example.co.uk now", "write to [email] now"),
        (f"pay {CARD} or {IBAN}, please", "pay [card] or [iban], please"),
        ("call +49 (30) 123 456 78 or (555) 123-4567", "call [phone] or [phone]"),
        ("my number is 078-05-1120.", "my number is [ssn]."),
        ("AKIAIOSFODNN7EXAMPLE and sk-abcdefghij0123456789", "[secret] and [secret]"),
        (f"see {KEY} there", "see [secret] there"),
        ("see -----BEGIN PRIVATE KEY-----\nMIIEow and no end", "see [secret]"),
        # What stands beside a number is not of it, nor does it hide it.
        ("4111 1111 1111 1111 12/27", "[card] 12/27"),
        ("card 4111111111111111 123, 5500 0000 0000 0004 737", "card [card] 123, [card] 737"),
        ("2 of 4111 1111 1111 1111", "2 of [card]"),
        ("12 3782 822463 10005 0000", "12 [card] 0000"),
        ("pay to ES91 2100 0418 4502 0005 1332 EUR 50", "pay to [iban] EUR 50"),
        ("AT611904300234573201 BIC BKAUATWW", "[iban] BIC BKAUATWW"),
        ("IBANBE68539007547034 IBAN", "IBAN[iban] IBAN"),
        ("de89 3704 0044 0532 0130 00, ES91 2100 0418 45 0200051332", "[iban], [iban]"),
        ("DE89\u00a03704\u00a00044\u202f0532\u00a00130\u00a000\u00a0now", "[iban]\u00a0now"),
        ("4111\u00a01111\u00a01111\u00a01111\u00a012/27", "[card]\u00a012/27"),
        # Right by the check digits alone: of no network, a part of a longer word, not as long as
        # its country's, of words.
        ("12 7111 1111 1111 1114", None),
        ("4111 1111 1111 1111a and X4111111111111111", None),
        ("DE893704004405320130001 DE41370400440532013", None),
        ("XDE89370400440532013000", None),
        ("SE07 for all of us is my home now ok", None),
        # A wrong check digit, an order number, a version, a date: nobody's.
        ("order 4111 1111 1111 1112 v1.2.3 of 2026-05-01", None),
        ("GB00 WEST 1234 5698 7654 32", None),
        ("", None),
    ],
)
def test_each_kind_is_named_and_the_rest_stays(text: str, clean: str | None) -> None:
    assert has_personal_data(text) is (clean is not None)
    assert redact(text) == (text if clean is None else clean)


# ISO 13616's registry, one of each length: some with most of their letters.
IBANS = [
    "NO9386011117947",
    "BE68539007547034",
    "DK5000400440116243",
    "SI56263300012039086",
    "XK051212012345678906",
    "HR1210010051863000160",
    "BH67BMAG00001299123456",
    "GI75NWBK000000007099453",
    "VG96VPVG0000012345678901",
    "PT50000201231234567890154",
    "TR330006100519786457841326",
    "FR1420041010050500013M02606",
    "GT82TRAJ01020000001210029690",
    "QA58DOHB00001234567890ABCDEFG",
    "JO94CBJO0010000000000131000302",
    "MT84MALT011000012345MTLCAST001S",
    "LC55HEMM000100010012001200023015",
    "RU0304452522540817810538091310419",
]


@pytest.mark.parametrize("iban", IBANS)
def test_an_iban_is_as_long_as_its_country_says(iban: str) -> None:
    groups = " ".join(iban[at : at + 4] for at in range(0, len(iban), 4))
    for text in (iban, groups, iban.lower()):
        assert redact(f"to {text} 100 EUR") == "to [iban] 100 EUR"
    other = iban[:2] + iban[3] + iban[2] + iban[4:]
    assert iban[2] == iban[3] or "[iban]" not in redact(other)


@pytest.mark.parametrize(
    "piece", ["1 ", "4111 ", "4111-", "9111 1111 1111 1110 ", "de12 ", "4111\u00a0", CARD, IBAN]
)
def test_texts_of_numbers_take_time_in_proportion(piece: str) -> None:
    started = time.process_time()
    redact(piece * (100_000 // len(piece)))
    assert time.process_time() - started < 3


PIECES = st.lists(
    st.one_of(
        st.sampled_from(
            [
                "a@b.cc",
                CARD,
                IBAN,
                KEY,
                "(555) 123-4567",
                "078-05-1120",
                "@",
                "+1 ",
                "sk-",
                "\u00a0",
            ]
        ),
        st.text("0123456789 -.()/@a[]+", max_size=24),
        st.text(max_size=8),
    ),
    max_size=8,
)


@given(PIECES)
def test_what_is_redacted_is_clean_and_stays_so(pieces: list[str]) -> None:
    clean = redact("".join(pieces))
    assert not has_personal_data(clean)
    assert redact(clean) == clean
