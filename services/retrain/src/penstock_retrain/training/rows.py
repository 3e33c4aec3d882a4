"""A dataset's rows as tokens. Pure, but for the tokenizer that is handed in.

Whoever trains and whoever measures take the same tokens. A row that is too long is left out and
counted, never cut: the end of an answer teaches when to stop.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from penstock_retrain.dataset.examples import Example

__all__ = ["IGNORED", "Pair", "TokenRow", "Tokenizer", "Tokens", "pairs_of", "tokens_of"]

# What the loss leaves out, as torch and transformers have it.
IGNORED = -100


class Tokenizer(Protocol):
    """What is used of a Hugging Face tokenizer."""

    eos_token_id: int | None

    def apply_chat_template(self, conversation: Any, **options: Any) -> Any:
        """A conversation's token ids."""
        ...

    def __call__(self, text: str) -> Any:
        """A text's token ids, under `input_ids`."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class Tokens:
    """A question and an answer.

    Attributes:
        prompt: The question, up to where the answer begins.
        answer: The answer, its end included.
    """

    prompt: Sequence[int]
    answer: Sequence[int]

    @property
    def length(self) -> int:
        """Of both."""
        return len(self.prompt) + len(self.answer)

    def row(self) -> dict[str, list[int]]:
        """As the trainer takes it: the answer alone counts."""
        ids = [*self.prompt, *self.answer]
        return {"input_ids": ids, "labels": [IGNORED] * len(self.prompt) + list(self.answer)}


@dataclasses.dataclass(frozen=True, slots=True)
class TokenRow:
    """A row to learn from or to measure on.

    Attributes:
        right: The question with the right answer.
        target: The right answer's text.
    """

    right: Tokens
    target: str


@dataclasses.dataclass(frozen=True, slots=True)
class Pair:
    """A question with a better and a worse answer.

    Attributes:
        better: With the better one.
        worse: With the worse one.
        target: The better one's text.
        row: As the preference trainer takes it, before it makes tokens of it.
    """

    better: Tokens
    worse: Tokens
    target: str
    row: Mapping[str, Any]


def tokens_of(
    examples: Iterable[Example], tokenizer: Tokenizer, max_tokens: int
) -> tuple[list[TokenRow], Counter[str]]:
    """The rows, in their order, and how many were left out, by reason."""
    rows, left_out = [], Counter[str]()
    for example in examples:
        tokens = _tokens(example, example.target, tokenizer)
        if tokens.length > max_tokens:
            left_out["too_long"] += 1
        elif not tokens.answer:
            left_out["no_answer"] += 1
        else:
            rows.append(TokenRow(tokens, example.target))
    return rows, left_out


def pairs_of(
    examples: Sequence[Example], tokenizer: Tokenizer, max_tokens: int
) -> tuple[list[Pair], Counter[str]]:
    """The pairs, in their order, and how many rows were left out, by reason.

    The preference trainer takes conversations or texts to continue, not both: where there are
    conversations, the texts are left out.
    """
    pairs, left_out = [], Counter[str]()
    conversations = any(example.messages for example in examples)
    for example in examples:
        if not example.rejected or example.rejected == example.target:
            left_out["no_preference"] += 1
            continue
        if conversations and not example.messages:
            left_out["no_conversation"] += 1
            continue
        better = _tokens(example, example.target, tokenizer)
        worse = _tokens(example, example.rejected, tokenizer)
        if max(better.length, worse.length) > max_tokens:
            left_out["too_long"] += 1
        else:
            pairs.append(Pair(better, worse, example.target, _pair(example)))
    return pairs, left_out


def _tokens(example: Example, answer: str, tokenizer: Tokenizer) -> Tokens:
    if example.messages:
        turns = [{"role": m.role, "content": m.content} for m in example.messages]
        said = {"role": "assistant", "content": answer}
        prompt = _chat(tokenizer, turns, add_generation_prompt=True)
        whole = _chat(tokenizer, [*turns, said])
    else:
        prompt = list(tokenizer(example.prompt)["input_ids"])
        whole = list(tokenizer(example.prompt + answer)["input_ids"])
        if tokenizer.eos_token_id is not None and whole[-1:] != [tokenizer.eos_token_id]:
            whole.append(tokenizer.eos_token_id)
    # Templates may render the last question differently once it is answered, and tokens merge
    # across the border of a text: the answer begins where both part, as TRL has it.
    same = 0
    while same < min(len(prompt), len(whole)) and prompt[same] == whole[same]:
        same += 1
    return Tokens(tuple(whole[:same]), tuple(whole[same:]))


def _chat(tokenizer: Tokenizer, turns: Sequence[Mapping[str, str]], **options: Any) -> list[int]:
    made = tokenizer.apply_chat_template(list(turns), tokenize=True, return_dict=True, **options)
    return list(made["input_ids"])


def _pair(example: Example) -> dict[str, Any]:
    if not example.messages:
        return {"prompt": example.prompt, "chosen": example.target, "rejected": example.rejected}
    turns = [{"role": m.role, "content": m.content} for m in example.messages]
    return {
        "prompt": turns,
        "chosen": [{"role": "assistant", "content": example.target}],
        "rejected": [{"role": "assistant", "content": example.rejected}],
    }
