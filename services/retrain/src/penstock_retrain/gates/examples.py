"""What is asked, by whom it is answered, and what comes back. Pure."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from penstock_retrain.dataset.rows import Message

__all__ = ["ORIGINAL", "Answer", "Batch", "Contender", "Example", "Question", "batches_of"]

# The slice of a suite's own examples, without variants.
ORIGINAL = "all"


@dataclasses.dataclass(frozen=True)
class Example:
    """A question with what a right answer is.

    Attributes:
        id: Unlike any other's of its suite.
        messages: The conversation before the answer.
        prompt: The text to continue where it is no conversation; else empty.
        expected: The right answer, text or JSON; None where nobody knows it.
        schema: The JSON Schema that an answer satisfies; None for none.
        forbidden: Texts that an answer must not have.
        labels: For slices, beside the example's pool of the dataset.
        variant: The variant that it was made by; empty of an original.
        origin: The example that a variant was made of; its own id of an original.
    """

    id: str
    messages: tuple[Message, ...] = ()
    prompt: str = ""
    expected: Any = None
    schema: Mapping[str, Any] | None = None
    forbidden: tuple[str, ...] = ()
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    variant: str = ""
    origin: str = ""

    @property
    def said(self) -> str:
        """What the last to speak says, which is what people see of it."""
        return self.messages[-1].content if self.messages else self.prompt

    @functools.cached_property
    def digest(self) -> str:
        """Names what is asked, whatever counts as right."""
        turns = [[turn.role, turn.content] for turn in self.messages]
        asked = json.dumps([turns, self.prompt], ensure_ascii=False)
        return hashlib.sha256(asked.encode()).hexdigest()[:32]


@dataclasses.dataclass(frozen=True)
class Contender:
    """A model that answers.

    Attributes:
        name: For people.
        digest: Of its weights: its answers are kept under it.
        model: A Hugging Face directory.
        adapter: A PEFT directory; None for the model as it is.
    """

    name: str
    digest: str
    model: Path
    adapter: Path | None = None


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a contender says.

    Attributes:
        text: The answer; empty where the question does not fit into the model.
        prompt_tokens: Tokens of the question.
        completion_tokens: Tokens of the answer, its end not counted.
        seconds: How long its batch took.
        batch: How many were answered together.
    """

    text: str
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    batch: int


@dataclasses.dataclass(frozen=True)
class Question:
    """What a model is given: nothing of what would be right.

    Attributes:
        digest: Names it.
        messages: The conversation.
        prompt: The text to continue; empty where there is a conversation.
        max_tokens: Of the answer.
    """

    digest: str
    messages: tuple[Message, ...]
    prompt: str
    max_tokens: int

    @property
    def chars(self) -> int:
        """Characters of the question."""
        return len(self.prompt) + sum(len(turn.content) for turn in self.messages)


@dataclasses.dataclass(frozen=True)
class Batch:
    """Questions that are answered together.

    Attributes:
        id: Of contender, questions and how they are asked: the same batch has the same.
        contender: Who is asked.
        questions: What.
    """

    id: str
    contender: Contender
    questions: tuple[Question, ...]


def batches_of(
    contenders: Sequence[Contender], questions: Sequence[Question], size: int
) -> list[Batch]:
    """The batches in which contenders are asked, each question once.

    Depends on nothing but the questions: what was left undone is done in the same batches, and
    answers do not depend on where a run was killed. Contenders take turns, and in turns begin, so
    that a machine that slows down slows all of them.
    """
    once = {question.digest: question for question in questions}
    # Questions of a length go together: little padding.
    ordered = sorted(once.values(), key=lambda each: (each.max_tokens, each.chars, each.digest))
    found: list[Batch] = []
    for number, at in enumerate(range(0, len(ordered), size)):
        chosen = tuple(ordered[at : at + size])
        asked = list({each.digest: each for each in contenders}.values())
        turns = asked if number % 2 == 0 else asked[::-1]
        found += [Batch(_batch_id(each, chosen), each, chosen) for each in turns]
    return found


def _batch_id(contender: Contender, questions: Sequence[Question]) -> str:
    asked = [contender.digest, *((each.digest, each.max_tokens) for each in questions)]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:32]
