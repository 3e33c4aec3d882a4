"""Every error has one way on, and delays grow, differ and stay bounded."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import Code, InvalidRequest, PenstockError, Unavailable
from penstock.failures import Poisoned, Reason, Way, reason_of, retry_delay_s, way_of

DOCS = Path(__file__).parents[3] / "docs" / "dead-letters.md"
CODES = [code for code in Code.keys() if code != "ERROR_CODE_UNSPECIFIED"]  # noqa: SIM118
OVERLOADED = PenstockError("too much is queued", code=Code.ERROR_CODE_OVERLOADED, retryable=True)
ENGINE = PenstockError("the engine raised")


@pytest.mark.parametrize(
    ("error", "deaths", "attempt", "way"),
    [
        (InvalidRequest("no", code=Code.ERROR_CODE_MALFORMED), 0, 1, Way.BURY),
        (InvalidRequest("no"), 0, 1, Way.REFUSE),
        (PenstockError("late", code=Code.ERROR_CODE_DEADLINE_EXCEEDED), 0, 9, Way.EXPIRE),
        (PenstockError("back", code=Code.ERROR_CODE_CANCELLED), 0, 1, Way.CANCEL),
        (OVERLOADED, 0, 1, Way.WAIT),
        (OVERLOADED, 0, 99, Way.WAIT),
        (Unavailable("gone"), 0, 1, Way.RETRY),
        (Unavailable("gone"), 0, 2, Way.RETRY),
        (Unavailable("gone"), 0, 3, Way.BURY),
        (ENGINE, 0, 1, Way.RETRY),
        (ENGINE, 1, 2, Way.RETRY),
        (ENGINE, 2, 2, Way.QUARANTINE),
        (ENGINE, 3, 1, Way.BURY),
        (InvalidRequest("no"), 2, 1, Way.REFUSE),
        (ValueError("a bug"), 0, 1, Way.BURY),
        (Poisoned("three died"), 0, 1, Way.BURY),
    ],
    ids=str,
)
def test_the_way_on(error: Exception, deaths: int, attempt: int, way: Way) -> None:
    assert way_of(error, deaths=deaths, attempt=attempt) is way


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (None, Reason.HANDLER_RAISED),
        (ValueError("a bug"), Reason.HANDLER_RAISED),
        (InvalidRequest("no", code=Code.ERROR_CODE_MALFORMED), Reason.UNDECODABLE),
        (InvalidRequest("no"), Reason.INVALID),
        (Unavailable("gone"), Reason.RETRIES_EXHAUSTED),
        (OVERLOADED, Reason.RETRIES_EXHAUSTED),
        (Poisoned("three died"), Reason.POISON),
        (PenstockError("odd", code=Code.ERROR_CODE_STREAM_DIVERGED), Reason.HANDLER_RAISED),
    ],
    ids=str,
)
def test_the_code_under_which_a_record_is_buried(error: Exception | None, reason: Reason) -> None:
    assert reason_of(error) is reason


@pytest.mark.parametrize("code", CODES)
def test_the_guide_has_the_way_of_every_error(code: str) -> None:
    text = DOCS.read_text(encoding="utf-8")
    row = re.search(rf"^\|[^|]*`{code}`[^|]*\|[^|]*\| `(\w+)` \|", text, re.MULTILINE)
    assert row is not None, f"docs/dead-letters.md has no row for {code}"
    assert row[1] == way_of(PenstockError("x", code=Code.Value(code))).value


def test_the_guide_has_every_reason() -> None:
    text = DOCS.read_text(encoding="utf-8")
    for reason in Reason:
        assert f"| `{reason.value}` |" in text


@given(st.integers(1, 10_000), st.text(max_size=20))
def test_a_delay_is_bounded_and_repeatable(attempt: int, seed: str) -> None:
    delay_s = retry_delay_s(attempt, seed, first_s=0.2, longest_s=10.0)
    bound_s = min(10.0, 0.2 * 2 ** min(attempt - 1, 64))
    assert bound_s / 2 <= delay_s < bound_s
    assert delay_s == retry_delay_s(attempt, seed, first_s=0.2, longest_s=10.0)


def test_records_that_failed_together_do_not_come_back_together() -> None:
    delays = sorted(retry_delay_s(4, f"req-{n}") for n in range(1000))
    tenths = [sum(0.8 + 0.08 * n <= d < 0.88 + 0.08 * n for d in delays) for n in range(10)]
    assert min(tenths) > 60
