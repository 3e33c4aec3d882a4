"""What the demonstration claims, on runs where one thing is wrong."""

import json
from decimal import Decimal

import pytest

from penstock.cli.demo_tally import Tally, Ticket, claims, load_tickets, percentile
from penstock.cli.prices import price_by
from penstock.cli.run import CliError
from penstock.pricing import PriceTable
from penstock.v1 import admitted_pb2, cost_service_pb2, response_pb2

RUN, TENANT = "r1", "demo-r1"
LABELS = {"category": "billing", "priority": "low", "product": "beacon"}
TICKETS = [Ticket(f"T-{n}", f"text {n}", LABELS) for n in range(4)]
# A third of a cent has no end in binary: a float anywhere would show.
PER_TOKEN = Decimal("0.0033")

ADMITTED = "every ticket was admitted once"
ONCE = "every ticket has exactly one terminal response"
ANSWERS = "every response is an answer"
ACCURACY = "accuracy is at least 90%"
LINES = "the ledger has one line per answer"
TOKENS = "the ledger has the responses' tokens"
TOTAL = "the ledger's total is the responses' cost, exactly"
THREE_OF_FOUR = "75.0% (3 of 4); category 75.0%; priority 75.0%; product 75.0%"


def price(response):
    return PER_TOKEN * (response.usage.prompt_tokens + response.usage.completion_tokens)


def response(ticket, outcome="ANSWERED", text=None, tenant=TENANT, **fields):
    made = response_pb2.GenerateResponse(
        idempotency_key=ticket.key(RUN),
        tenant=tenant,
        model="triage",
        outcome=f"OUTCOME_{outcome}",
        text=json.dumps(LABELS) if text is None else text,
        **fields,
    )
    if outcome == "ANSWERED":
        made.usage.prompt_tokens, made.usage.completion_tokens = 10, 3
    return made


def admitted(ticket):
    record = admitted_pb2.AdmittedRequest(request_id=ticket.ticket_id)
    record.request.CopyFrom(ticket.request(RUN, TENANT))
    return record


def ledger(lines, usd=None):
    cost = PER_TOKEN * 13 * lines if usd is None else Decimal(usd)
    answer = cost_service_pb2.GetSpendResponse(total_usd=str(cost), lines=lines)
    answer.groups.add(prompt_tokens=10 * lines, completion_tokens=3 * lines)
    return answer


def tally(responses, admissions=TICKETS):
    made = Tally(TICKETS, RUN, TENANT)
    for ticket in admissions:
        made.admit(admitted(ticket))
    for number, each in enumerate(responses):
        made.respond(each, float(number))
    return made


def failing(made, spend):
    return {claim.name: claim.found for claim in claims(made, spend, price, 0.9) if not claim.holds}


def test_a_perfect_run_holds_every_claim():
    assert failing(tally([response(t) for t in TICKETS]), ledger(4)) == {}


def test_answers_from_the_cache_and_unbilled_work_hold_every_claim():
    hit = response(TICKETS[3], cached=True)
    hit.usage.Clear()
    hit.usage.SetInParent()
    made = tally([*map(response, TICKETS[:3]), hit])
    # Four billed lines, one of them for nothing; a shadow's line is in none of these sums.
    answer = ledger(3)
    answer.lines, answer.unbilled_usd = 4, "0.9"
    answer.groups.add(tenant=TENANT, variant="shadow", amount_usd="0", unbilled_usd="0.9")
    assert failing(made, answer) == {}


def test_a_second_terminal_response_is_seen():
    made = tally([response(t) for t in [*TICKETS, TICKETS[2]]])
    assert failing(made, ledger(4)) == {
        ONCE: "3 of 4; more than one: 1 (T-2-r1)",
        TOKENS: "40 + 12 for 50 + 15",
        TOTAL: "0.1716 ≠ 0.2145 USD",
    }


def test_a_missing_response_is_seen():
    made = tally([response(t) for t in TICKETS[:3]])
    assert failing(made, ledger(3)) == {
        ONCE: "3 of 4; missing: 1 (T-3-r1)",
        ANSWERS: "3 of 4",
        ACCURACY: THREE_OF_FOUR,
    }


def test_a_rejection_is_terminal_but_no_answer():
    made = tally([*map(response, TICKETS[:3]), response(TICKETS[3], "REJECTED", "")])
    made.responses["T-3-r1"][0].error.message = "too long"
    assert failing(made, ledger(3)) == {
        ANSWERS: "3 of 4; 1 rejected; most often: too long",
        ACCURACY: THREE_OF_FOUR,
    }


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("billing", (75, 75, 75)),
        ("[]", (75, 75, 75)),
        ("null", (75, 75, 75)),
        (json.dumps({**LABELS, "priority": "high"}), (100, 75, 100)),
        ('{"category":"billing"}', (100, 75, 75)),
        (json.dumps({**LABELS, "more": "x"}), (100, 100, 100)),
    ],
)
def test_a_wrong_answer_costs_accuracy_only(text, fields):
    made = tally([*map(response, TICKETS[:3]), response(TICKETS[3], text=text)])
    category, priority, product = fields
    assert failing(made, ledger(4)) == {
        ACCURACY: "75.0% (3 of 4); "
        f"category {category}.0%; priority {priority}.0%; product {product}.0%"
    }


def test_a_ticket_admitted_twice_is_seen():
    made = tally(map(response, TICKETS), admissions=[*TICKETS, TICKETS[0]])
    assert failing(made, ledger(4)) == {ADMITTED: "3 of 4"}


def test_the_last_digit_of_the_ledger_counts():
    made = tally(map(response, TICKETS))
    found = failing(made, ledger(4, usd="0.17160000000000000000000000001"))
    assert found == {TOTAL: "0.17160000000000000000000000001 ≠ 0.1716 USD"}


def test_trailing_zeros_are_the_same_amount():
    assert failing(tally(map(response, TICKETS)), ledger(4, usd="0.171600")) == {}


def test_a_model_without_a_price_is_named():
    made = tally(map(response, TICKETS))
    found = claims(made, ledger(4), price_by(PriceTable.parse("{}")), 0.9)[-1]
    assert not found.holds
    assert found.found.startswith("no price is known for model 'triage'")


def test_cached_tokens_have_a_price_of_their_own():
    table = """{"triage": {"input_cost_per_token": 0.0000001, "output_cost_per_token": 0.0000004,
                "cache_read_input_token_cost": 0.00000005}}"""
    answer = response(TICKETS[0])
    answer.usage.cached_prompt_tokens = 4
    # 6 * 0.1 + 4 * 0.05 + 3 * 0.4 millionths
    assert price_by(PriceTable.parse(table))(answer) == Decimal("0.0000020")


def test_a_ticket_may_hold_what_ends_lines_elsewhere():
    line = json.dumps(
        {"ticket_id": "T", "text": "a\u2028b\x85c", "expected": {}}, ensure_ascii=False
    )
    (ticket,) = load_tickets(f"{line}\r\n")
    assert ticket.text == "a\u2028b\x85c"


def test_a_missing_and_a_doubled_ledger_line_are_seen():
    for lines in (3, 5):
        found = failing(tally(map(response, TICKETS)), ledger(lines))
        assert set(found) == {LINES, TOKENS, TOTAL}


def test_a_silent_ledger_fails_its_claims():
    assert set(failing(tally(map(response, TICKETS)), None)) == {LINES, TOKENS, TOTAL}


def test_a_silent_stack_fails_every_claim_but_the_vacuous():
    found = failing(tally([], admissions=[]), ledger(0, usd="0"))
    assert set(found) == {ADMITTED, ONCE, ANSWERS, ACCURACY, TOTAL}
    assert found[ADMITTED] == "0 of 4; ingest admitted none"


def test_other_tenants_are_passed_over_and_strangers_of_ours_are_not():
    made = tally([*map(response, TICKETS), response(TICKETS[0], tenant="support")])
    assert failing(made, ledger(4)) == {}
    made.respond(response(Ticket("T-9", "", LABELS)), 9.0)
    assert failing(made, ledger(4)) == {ONCE: "4 of 4; 1 for no ticket"}


def test_numbers_follow_the_clock_until_the_last_answer():
    made = Tally(TICKETS, RUN, TENANT)
    for number, ticket in enumerate(TICKETS):
        made.publish(ticket.key(RUN), 100.0 + number)
    assert made.numbers(104.0).latency_p50_s is None
    for number, ticket in enumerate(TICKETS):
        made.respond(response(ticket), 102.0 + 2 * number)
    numbers = made.numbers(500.0)
    assert (numbers.elapsed_s, numbers.completion_tokens_per_s) == (8.0, 1.5)
    assert (numbers.latency_p50_s, numbers.latency_p99_s) == (3.0, 5.0)


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [([], 0.5, None), ([7.0], 0.99, 7.0), ([3, 1, 2, 4], 0.5, 2), (range(1, 101), 0.99, 99)],
)
def test_percentile_is_the_nearest_rank(values, share, expected):
    assert percentile(list(values), share) == expected


def test_tickets_are_read_up_to_the_limit():
    line = '{"ticket_id": "%s", "text": "x", "expected": {"category": "billing"}}'
    text = "\n".join([line % "a", line % "b", "not read"])
    assert [ticket.ticket_id for ticket in load_tickets(text, 2)] == ["a", "b"]
    with pytest.raises(CliError, match="line 3 is not a ticket"):
        load_tickets(text)
    with pytest.raises(CliError, match="comes twice"):
        load_tickets("\n".join([line % "a", line % "a"]))
    with pytest.raises(CliError, match="no tickets"):
        load_tickets("")


def test_a_ticket_is_one_greedy_user_turn():
    request = TICKETS[0].request(RUN, TENANT)
    assert [(m.role, m.content) for m in request.messages] == [("user", "text 0")]
    assert request.sampling.HasField("temperature")
    assert request.sampling.temperature == 0
    assert (request.idempotency_key, request.tenant) == ("T-0-r1", TENANT)
