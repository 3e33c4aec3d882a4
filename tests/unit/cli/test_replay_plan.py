"""Which requests a window holds, how they are repeated, and what is counted of the answers."""

from __future__ import annotations

import datetime as dt

import pytest

from penstock.cli.replay import report, report_table
from penstock.cli.replay_plan import Asked, Found, Original, Tally, Window, pin, repeat, replay_id
from penstock.cli.replay_spend import Cost
from penstock.cli.run import CliError
from penstock.codec import decode, encode
from penstock.records import Partition, Record
from penstock.v1 import admitted_pb2, common_pb2, response_pb2, route_pb2

START = dt.datetime(2026, 5, 1, 10, 0, tzinfo=dt.UTC)
END = START + dt.timedelta(minutes=20)
NOW = START + dt.timedelta(days=1)
ASKED = Asked("run-1")


def admitted(request_id: str, **more: object) -> admitted_pb2.AdmittedRequest:
    made = admitted_pb2.AdmittedRequest(
        request_id=request_id,
        variant="base",
        route_version=3,
        reply_partition=1,
        stream=True,
        encoding=admitted_pb2.ENCODING_JSON,
        **more,  # type: ignore[arg-type]
    )
    made.request.model = "triage"
    made.request.tenant = "acme"
    made.request.idempotency_key = f"key-{request_id}"
    made.request.sampling.seed = 7
    made.request.priority = -5
    made.published_at.FromDatetime(START)
    made.deadline.FromDatetime(START + dt.timedelta(seconds=30))
    return made


def record(made: admitted_pb2.AdmittedRequest, minute: float = 1, partition: int = 0) -> Record:
    written = encode(made, topic="p.admitted", key=b"k", source="test")
    at_ms = int((START.timestamp() + minute * 60) * 1000)
    return Record(
        Partition("p.admitted", partition), 0, b"k", written.value, written.headers, at_ms
    )


def response(request_id: str, text: str = "billing", outcome: int = 1) -> Record:
    made = response_pb2.GenerateResponse(
        request_id=request_id,
        text=text,
        outcome=outcome,  # type: ignore[arg-type]
        tenant="acme",
        usage=common_pb2.Usage(prompt_tokens=10, completion_tokens=2),
    )
    made.created_at.FromDatetime(NOW)
    written = encode(made, topic="p.replays", key=b"k", source="test")
    return Record(Partition("p.replays", 0), 0, b"k", written.value, written.headers, 0)


def found(window: Window, *records: Record) -> Found:
    taken = Found(window, "run-1")
    for each in records:
        taken.take(each)
    return taken


def test_a_window_holds_what_was_asked_for_in_it_and_nothing_else() -> None:
    other_model, other_tenant = admitted("model"), admitted("tenant")
    other_model.request.model = "other"
    other_tenant.request.tenant = "zeta"
    window = Window(START, END, model="triage", tenant="acme")
    taken = found(
        window,
        record(admitted("late"), 20),
        record(admitted("second"), 2),
        record(admitted("first"), 0),
        record(admitted("before"), -1),
        record(other_model),
        record(other_tenant),
        record(admitted("a", purpose=common_pb2.PURPOSE_REPLAY)),
        record(admitted("b", purpose=common_pb2.PURPOSE_SHADOW)),
        record(admitted("c", purpose=common_pb2.PURPOSE_PROBE)),
        record(admitted("first"), 3),
        Record(Partition("p.admitted", 0), 9, None, b"\xff\xff", (), 0),
    )
    assert [o.admitted.request_id for o in taken.chosen()] == ["first", "second"]
    assert (taken.matching, taken.unreadable) == (2, 1)


def test_a_limit_takes_the_oldest_whatever_the_order_and_bounds_the_memory() -> None:
    window = Window(START, END, limit=3)
    minutes = [19 - (n * 7) % 19 for n in range(19)]
    taken = found(window, *(record(admitted(f"r{m:02}"), m) for m in minutes))
    assert [o.admitted.request_id for o in taken.chosen()] == ["r01", "r02", "r03"]
    assert taken.matching == 19


def test_what_the_run_wrote_before_is_known() -> None:
    taken = found(
        Window(START, END),
        record(admitted("r1")),
        record(admitted(replay_id("r1", "run-1"), purpose=common_pb2.PURPOSE_REPLAY), 99),
        record(admitted(replay_id("r1", "run-11"), purpose=common_pb2.PURPOSE_REPLAY), 99),
    )
    assert taken.written == {"r1~replay-run-1"}


def repeated(asked: Asked = ASKED) -> tuple[admitted_pb2.AdmittedRequest, int | None]:
    original = Original(admitted("r1"), b"k", 2, 0)
    written = repeat(original, asked, topic="p.admitted", route_version=9, now=NOW)
    as_read = Record(Partition("p.admitted", 2), 0, b"k", written.value, written.headers, 0)
    return decode(as_read, admitted_pb2.AdmittedRequest), written.partition


def test_a_replay_is_the_request_pinned_and_out_of_everyones_way() -> None:
    made, partition = repeated()
    assert made.request_id == "r1~replay-run-1"
    assert (made.origin_request_id, made.purpose) == ("r1", common_pb2.PURPOSE_REPLAY)
    assert (made.variant, made.route_version) == ("base", 9)
    assert made.deadline.ToDatetime(dt.UTC) == NOW + dt.timedelta(seconds=30)
    assert not made.HasField("reply_partition")
    assert not made.stream
    assert made.request.priority == 50
    assert made.request.no_cache
    assert made.request.idempotency_key == ""
    assert made.request.sampling.seed == 7
    assert made.request.tenant == "acme"
    assert made.encoding == admitted_pb2.ENCODING_JSON
    assert partition == 2


def test_an_operator_says_who_answers_who_pays_and_how_long() -> None:
    made, _ = repeated(Asked("run-1", variant="lora-7", charge_to="ops", timeout_s=5))
    assert (made.variant, made.request.tenant) == ("lora-7", "ops")
    assert made.deadline.ToDatetime(dt.UTC) == NOW + dt.timedelta(seconds=5)


def test_the_same_run_derives_the_same_id_and_another_one_another() -> None:
    assert repeated()[0].request_id == repeated()[0].request_id
    assert repeated(Asked("run-2"))[0].request_id != repeated()[0].request_id


@pytest.mark.parametrize("run_id", ["", "a b", "a/b", "x" * 41, "a~b"])
def test_a_run_id_is_a_plain_word(run_id: str) -> None:
    with pytest.raises(CliError, match="run id"):
        Asked(run_id)


def test_a_variant_has_to_be_in_the_route() -> None:
    route = route_pb2.Route(model="triage", version=9)
    route.variants.add(name="base")
    route.variants.add(name="lora-7")
    originals = [Original(admitted("r1"), b"k", 0, 0)]
    assert pin(originals, {"triage": route}, None) == {"triage": 9}
    assert pin(originals, {"triage": route}, "lora-7") == {"triage": 9}
    with pytest.raises(CliError, match=r"no variant 'lora-8'; name one.*base, lora-7"):
        pin(originals, {"triage": route}, "lora-8")
    with pytest.raises(CliError, match="no route any more"):
        pin(originals, {}, None)


def test_answers_are_compared_with_the_originals() -> None:
    ids = [f"r{n}" for n in range(6)]
    tally = Tally("run-1", ids)
    for each in ids[:5]:
        tally.take_replay(response(replay_id(each, "run-1")))
    tally.take_replay(response(replay_id("r0", "run-1")))  # a repeat counts once
    tally.take_replay(response(replay_id("r5", "run-2")))  # another run's
    tally.take_replay(response("r5"))
    tally.take_replay(response(replay_id("r4", "run-1"), outcome=response_pb2.OUTCOME_EXPIRED))
    tally.take_original(response("r0"))
    tally.take_original(response("r1", text="shipping"))
    tally.take_original(response("r2", outcome=response_pb2.OUTCOME_FAILED))
    tally.take_original(response("r4"))
    tally.take_original(response("stranger"))
    assert (tally.expected, tally.ended) == (6, 5)
    assert tally.outcomes() == {"answered": 4, "expired": 1}
    assert tally.tokens() == (50, 10)
    assert tally.comparison() == {
        "equal": 1,
        "different": 1,
        "original was no answer": 1,
        "original not found": 1,
        "replay is no answer": 1,
    }
    assert tally.charged() == (frozenset({"acme"}), NOW, 5)


def test_the_report_has_every_figure() -> None:
    tally = Tally("run-1", ["r0"])
    tally.take_replay(response(replay_id("r0", "run-1")))
    tally.take_original(response("r0"))
    shown = report("run-1", tally, 1, Cost("0.0000014", "1 lines"))
    assert shown == {
        "run_id": "run-1",
        "requests": 1,
        "sent": 1,
        "ended": 1,
        "outcomes": {"answered": 1},
        "prompt_tokens": 10,
        "completion_tokens": 2,
        "cost_usd": "0.0000014",
        "cost_note": "1 lines",
        "answers": {"equal": 1},
    }
    assert report_table(shown).row_count == 5


def test_nothing_that_came_back_costs_nothing() -> None:
    assert Tally("run-1", ["r0"]).charged() == (frozenset(), None, 0)
