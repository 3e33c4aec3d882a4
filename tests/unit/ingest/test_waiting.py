"""Callers get all of the text once and the committed end, whatever happens to the chunks."""

from __future__ import annotations

import asyncio
import random
import zlib
from collections.abc import Iterable

import pytest

from penstock.errors import Code, PenstockError
from penstock.v1 import response_pb2
from penstock_ingest.errors import DeadlinePassed, Diverged, Overloaded
from penstock_ingest.waiting.transcript import Transcript
from penstock_ingest.waiting.waiters import Caller, Piece, Waiters

TEXT = "Ünicode and some more text, drawn token by token."


def chunks(text: str, *, attempt: int = 1, size: int = 3) -> list[response_pb2.TokenChunk]:
    made = []
    for index, start in enumerate(range(0, len(text), size)):
        end = start + size
        made.append(
            response_pb2.TokenChunk(
                request_id="r",
                attempt=attempt,
                index=index,
                tokens=1,
                text=text[start:end],
                text_crc32=zlib.crc32(text[:end].encode()),
            )
        )
    return made


def answer(text: str = TEXT) -> response_pb2.GenerateResponse:
    return response_pb2.GenerateResponse(
        request_id="r", outcome=response_pb2.OUTCOME_ANSWERED, text=text
    )


def take(transcript: Transcript, some: Iterable[response_pb2.TokenChunk]) -> list[bool]:
    return [transcript.add(chunk) for chunk in some]


def test_text_grows_with_every_chunk() -> None:
    transcript = Transcript()
    made = chunks(TEXT)
    assert all(take(transcript, made))
    assert (transcript.text, transcript.tokens) == (TEXT, len(made))


def test_a_second_attempt_adds_only_what_is_new() -> None:
    transcript = Transcript()
    take(transcript, chunks(TEXT)[:5])
    grew = take(transcript, chunks(TEXT, attempt=2, size=4))
    assert grew.index(True) == 3  # 15 characters were there: the fourth chunk of 4 goes past
    assert transcript.text == TEXT


def test_a_second_attempt_that_differs_diverges_at_the_first_difference() -> None:
    transcript = Transcript()
    take(transcript, chunks(TEXT)[:5])
    other = chunks(TEXT[:7] + "#" + TEXT[8:], attempt=2)
    assert take(transcript, other[:2]) == [False, False]
    with pytest.raises(Diverged):
        transcript.add(other[2])


def test_a_late_chunk_of_the_first_attempt_is_ignored() -> None:
    transcript = Transcript()
    first = chunks(TEXT)
    take(transcript, first[:2])
    take(transcript, chunks(TEXT, attempt=2)[:4])
    assert not transcript.add(first[4])
    assert transcript.text == TEXT[:12]


def test_a_repeated_chunk_is_ignored() -> None:
    transcript = Transcript()
    first, second, *_ = chunks(TEXT)
    assert take(transcript, [first, first, second, first]) == [True, False, True, False]
    assert transcript.text == TEXT[:6]


@pytest.mark.parametrize("fault", ["lost", "damaged"])
def test_after_a_fault_the_response_makes_up(fault: str) -> None:
    transcript = Transcript()
    made = chunks(TEXT)
    if fault == "lost":
        del made[4]
    else:
        made[4].text_crc32 ^= 1
    take(transcript, made)
    assert (transcript.text, transcript.broken) == (TEXT[:12], True)
    transcript.finish(TEXT, 17)
    assert (transcript.text, transcript.tokens) == (TEXT, 17)


def test_a_new_attempt_mends_a_lost_chunk() -> None:
    transcript = Transcript()
    made = chunks(TEXT)
    take(transcript, [*made[:2], *made[3:]])
    take(transcript, chunks(TEXT, attempt=2))
    assert (transcript.text, transcript.broken) == (TEXT, False)


def test_a_response_that_differs_from_what_was_sent_diverges() -> None:
    transcript = Transcript()
    take(transcript, chunks(TEXT)[:3])
    with pytest.raises(Diverged):
        transcript.finish("other", 2)


@pytest.mark.parametrize("seed", range(20))
def test_any_loss_and_any_attempts_give_a_prefix(seed: int) -> None:
    source = random.Random(seed)
    transcript = Transcript()
    for attempt in (1, 2, 3):
        made = chunks(TEXT, attempt=attempt, size=source.randint(1, 7))
        kept = [c for c in made[: source.randint(0, len(made))] if source.random() > 0.1]
        take(transcript, kept)
        assert TEXT.startswith(transcript.text)
    transcript.finish(TEXT, 1)
    assert transcript.text == TEXT


async def collect(caller: Caller) -> tuple[list[Piece], response_pb2.GenerateResponse]:
    pieces = []
    while isinstance(event := await caller.next(), Piece):
        pieces.append(event)
    return pieces, event


async def test_a_caller_gets_text_then_the_end() -> None:
    waiters = Waiters(10)
    with waiters.attach("r", 5) as caller:
        task = asyncio.create_task(collect(caller))
        for chunk in chunks(TEXT)[:-1]:
            waiters.chunk(chunk)
            await asyncio.sleep(0)
        waiters.end(answer())
        pieces, response = await task
    assert "".join(p.text for p in pieces) == TEXT == response.text
    assert len(pieces) > 2
    sent = ""
    for piece in pieces:
        sent += piece.text
        assert piece.crc32 == zlib.crc32(sent.encode())
    assert [p.index for p in pieces] == sorted(p.index for p in pieces)


async def test_a_repeat_of_the_request_joins_the_wait_and_gets_everything() -> None:
    waiters = Waiters(1)
    with waiters.attach("r", 5) as first:
        for chunk in chunks(TEXT)[:6]:
            waiters.chunk(chunk)
        with waiters.attach("r", 5) as second:
            waiters.end(answer())
            for caller in (first, second):
                pieces, _ = await collect(caller)
                assert "".join(p.text for p in pieces) == TEXT
    assert len(waiters) == 0


async def test_divergence_ends_the_stream_but_not_a_wait_for_the_response() -> None:
    waiters = Waiters(10)
    with waiters.attach("r", 5) as caller:
        waiters.chunk(chunks("one text")[0])
        waiters.chunk(chunks("another", attempt=2)[0])
        assert isinstance(await caller.next(), Piece)
        with pytest.raises(Diverged) as caught:
            await caller.next()
        assert caught.value.code == Code.ERROR_CODE_STREAM_DIVERGED
        waiters.end(answer("another"))
        assert (await caller.response()).text == "another"


async def test_a_stream_that_diverges_is_nothing_to_those_who_wait_for_the_response() -> None:
    waiters = Waiters(10)
    with waiters.attach("r", 5) as stream, waiters.attach("r", 5) as unary:
        waiting = asyncio.create_task(unary.response())
        waiters.chunk(chunks("one text")[0])
        waiters.chunk(chunks("another", attempt=2)[0])
        assert isinstance(await stream.next(), Piece)
        with pytest.raises(Diverged):
            await stream.next()
        with waiters.attach("r", 5) as later:
            waiters.end(answer("another"))
            assert (await later.response()).text == "another"
        assert (await waiting).text == "another"


async def test_an_end_without_an_answer_is_the_end() -> None:
    waiters = Waiters(10)
    failed = response_pb2.GenerateResponse(request_id="r", outcome=response_pb2.OUTCOME_FAILED)
    with waiters.attach("r", 5) as caller:
        waiters.chunk(chunks(TEXT)[0])
        waiters.end(failed)
        pieces, response = await collect(caller)
    assert [p.text for p in pieces] == [TEXT[:3]]
    assert response.outcome == response_pb2.OUTCOME_FAILED


async def test_waiting_ends_with_time_with_cancel_and_with_failure() -> None:
    waiters = Waiters(10)
    with waiters.attach("r", 0) as caller, pytest.raises(DeadlinePassed):
        await caller.response()
    with waiters.attach("r", 5) as caller, waiters.attach("r", 5) as other:
        caller.cancel()
        with pytest.raises(PenstockError) as caught:
            await caller.response()
        assert caught.value.code == Code.ERROR_CODE_CANCELLED
        waiters.fail("r", PenstockError("not written"))
        with pytest.raises(PenstockError, match="not written"):
            await other.response()


async def test_the_bound_counts_requests_and_leaving_makes_room() -> None:
    waiters = Waiters(1)
    with waiters.attach("r", 5), waiters.attach("r", 5), pytest.raises(Overloaded):
        waiters.attach("other", 5)
    with waiters.attach("other", 5):
        assert len(waiters) == 1
    assert len(waiters) == 0


async def test_what_nobody_waits_for_is_passed_over() -> None:
    waiters = Waiters(1)
    waiters.chunk(chunks(TEXT)[0])
    waiters.end(answer())
    waiters.fail("r", PenstockError("x"))
    assert len(waiters) == 0
