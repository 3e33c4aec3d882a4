"""Rows as tokens, and what is made of a model's scores."""

from __future__ import annotations

import math
from typing import Any

import pytest

from penstock_retrain.dataset.examples import Example, Pool
from penstock_retrain.dataset.rows import Message
from penstock_retrain.training.rows import IGNORED, pairs_of, tokens_of
from penstock_retrain.training.scores import Scored, exact_match, of_answers, of_pairs, same_answer

END = 0


class Characters:
    """A tokenizer whose tokens are characters; an answered question is rendered with a `!`."""

    eos_token_id = END

    def __init__(self, answered: str = "") -> None:
        self.answered = answered

    def apply_chat_template(self, conversation: Any, **options: Any) -> dict[str, list[int]]:
        text = ""
        for turn in conversation:
            mark = self.answered if len(conversation) > 1 and turn["role"] == "user" else ""
            text += f"<{turn['role']}>{turn['content']}{mark}\0"
        return self(text + ("<assistant>" if options.get("add_generation_prompt") else ""))

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": [ord(each) for each in text]}


def example(
    target: str = "yes", rejected: str | None = None, *, prompt: str = "", question: str = "why"
) -> Example:
    turns = () if prompt else (Message("user", question),)
    return Example("1", "g", turns, prompt, target, rejected, "label", {}, 0, Pool.RECENT)


def text(ids: Any) -> str:
    return "".join(chr(each) for each in ids)


def test_a_conversation_is_learnt_from_where_the_answer_begins() -> None:
    [row], left_out = tokens_of([example()], Characters(), 100)
    assert (text(row.right.prompt), text(row.right.answer)) == (
        "<user>why\0<assistant>",
        "yes\0",
    )
    given = row.right.row()
    assert text(given["input_ids"]) == "<user>why\0<assistant>yes\0"
    assert given["labels"] == [IGNORED] * 21 + [ord("y"), ord("e"), ord("s"), END]
    assert not left_out


def test_a_template_that_renders_an_answered_question_differently_parts_there() -> None:
    [row], _ = tokens_of([example()], Characters(answered="!"), 100)
    assert text(row.right.prompt) == "<user>why"
    assert text(row.right.answer) == "!\0<assistant>yes\0"


def test_a_text_is_continued_and_ended() -> None:
    [row], _ = tokens_of([example(" and so", prompt="first")], Characters(), 100)
    assert (text(row.right.prompt), text(row.right.answer)) == ("first", " and so\0")


def test_rows_that_are_too_long_are_left_out_and_counted() -> None:
    rows, left_out = tokens_of([example(), example("yes" * 100)], Characters(), 30)
    assert (len(rows), dict(left_out)) == (1, {"too_long": 1})


def test_pairs_need_a_worse_answer() -> None:
    examples = [
        example("yes", "no"),
        example("yes"),
        example("yes", "yes"),
        example("yes", "no", prompt="a text"),
        example("yes", "no" * 50),
    ]
    [pair], left_out = pairs_of(examples, Characters(), 30)
    assert (text(pair.better.answer), text(pair.worse.answer)) == ("yes\0", "no\0")
    assert pair.row["prompt"] == [{"role": "user", "content": "why"}]
    assert pair.row["rejected"] == [{"role": "assistant", "content": "no"}]
    assert dict(left_out) == {"no_preference": 2, "no_conversation": 1, "too_long": 1}


def test_pairs_of_texts_alone_are_learnt_from() -> None:
    [pair], left_out = pairs_of([example("yes", "no", prompt="a text")], Characters(), 30)
    assert pair.row == {"prompt": "a text", "chosen": "yes", "rejected": "no"}
    assert not left_out


def test_loss_is_per_token_whatever_row_it_is_in() -> None:
    scored = [Scored(math.log(0.5) * 1, 1, 1), Scored(math.log(0.25) * 3, 3, 0)]
    assert of_answers(scored) == {
        "held_out_loss": pytest.approx(-(math.log(0.5) + 3 * math.log(0.25)) / 4),
        "held_out_token_accuracy": 0.25,
    }
    assert of_answers([]) == of_pairs([], []) == {}


def test_a_margin_is_of_whole_answers() -> None:
    better = [Scored(-1.0, 2, 2), Scored(-9.0, 3, 1)]
    worse = [Scored(-5.0, 2, 0), Scored(-8.0, 1, 0)]
    assert of_pairs(better, worse) == {"held_out_margin": 1.5, "held_out_preferred": 0.5}


@pytest.mark.parametrize(
    ("said", "target", "right"),
    [
        ("yes", " Yes ", True),
        ("yes", "no", False),
        ('{"a": 1, "b": "x"}', '{"b": "X",  "a": 1}', True),
        ('{"a": 1}', '{"a": 1, "b": 2}', False),
        ('{"a": 1, "b": 2}', '{"a": 1}', False),
        ('{"a": 1', '{"a": 1}', False),
        ('{"a": 1}', "a: 1", False),
        ("[1]", "[1]", True),
        ("", "x", False),
    ],
)
def test_answers_that_say_the_same(said: str, target: str, right: bool) -> None:
    assert same_answer(said, target) is right


def test_the_share_of_right_answers() -> None:
    assert exact_match(["a", "b", "c", ""], ["a", "b", "x", "d"]) == 0.5
