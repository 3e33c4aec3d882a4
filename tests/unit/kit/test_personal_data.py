"""Personal data goes out of a text, and what is no personal data stays."""

from __future__ import annotations

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
        # A wrong check digit, an order number, a version, a date: nobody's.
        ("order 4111 1111 1111 1112 v1.2.3 of 2026-05-01", None),
        ("GB00 WEST 1234 5698 7654 32", None),
        ("", None),
    ],
)
def test_each_kind_is_named_and_the_rest_stays(text: str, clean: str | None) -> None:
    assert has_personal_data(text) is (clean is not None)
    assert redact(text) == (text if clean is None else clean)


PIECES = st.lists(
    st.one_of(
        st.sampled_from(
            ["a@b.cc", CARD, IBAN, KEY, "(555) 123-4567", "078-05-1120", "@", "+1 ", "sk-"]
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
