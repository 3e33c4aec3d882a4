from pathlib import Path

import pytest
from safetensors import safe_open

from examples.triage import evaluate
from examples.triage.evaluate import Accuracy, answer_tickets, load_model, parse_answer, score
from examples.triage.generate import read_jsonl

LABEL = {"category": "bug", "priority": "low", "product": "quill"}
GOOD = '{"category": "bug", "priority": "low", "product": "quill"}'


@pytest.fixture(scope="module")
def shipped():
    return load_model(evaluate.MODEL)


def test_the_shipped_model_triages_held_out_tickets(shipped):
    tickets = read_jsonl(evaluate.TICKETS)[:50]
    accuracy = score(tickets, answer_tickets(*shipped, [ticket["text"] for ticket in tickets]))
    assert accuracy.valid == 1
    assert accuracy.exact > 0.9, str(accuracy)


def test_company_in_the_batch_leaves_the_answer_as_it_is(shipped):
    tokenizer, model = shipped
    texts = [ticket["text"] for ticket in read_jsonl(evaluate.TICKETS)[:6]]
    together = answer_tickets(tokenizer, model, texts)
    assert [answer_tickets(tokenizer, model, [text])[0] for text in texts] == together


def test_prompts_and_answers_are_short_enough_for_a_small_machine(shipped):
    tokenizer, _ = shipped
    tickets = read_jsonl(evaluate.TICKETS)
    prompts = tokenizer.apply_chat_template(
        [[{"role": "user", "content": ticket["text"]}] for ticket in tickets],
        add_generation_prompt=True,
        return_dict=True,
    )["input_ids"]
    assert max(map(len, prompts)) <= 160
    assert len(tokenizer(GOOD)["input_ids"]) <= 40


def test_the_directory_is_small_and_holds_sixteen_bit_weights():
    assert sum(f.stat().st_size for f in Path(evaluate.MODEL).iterdir()) < 8_000_000
    with safe_open(evaluate.MODEL / "model.safetensors", "pt") as weights:
        assert {weights.get_slice(name).get_dtype() for name in weights.keys()} == {"BF16"}  # noqa: SIM118 - not a mapping


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        (GOOD, LABEL),
        (GOOD + "}", None),
        ("bug", None),
        ("[]", None),
        ('{"category": "bug"}', None),
    ],
)
def test_only_the_object_asked_for_is_an_answer(answer, label):
    assert parse_answer(answer) == label


def test_accuracy_counts_fields_apart_from_the_whole():
    ticket = {"ticket_id": "T-00001", "text": "", "expected": LABEL}
    answers = [GOOD, GOOD.replace("low", "high"), GOOD.replace("bug", "access"), "no JSON"]
    assert score([ticket] * 4, answers) == Accuracy(
        tickets=4,
        exact=0.25,
        valid=0.75,
        fields={"category": 0.5, "priority": 0.5, "product": 0.75},
    )
