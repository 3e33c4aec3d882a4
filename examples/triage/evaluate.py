"""Measures how many tickets a model triages right: greedy decoding, exact match.

Run it from the root of the repository:

    python -m examples.triage.evaluate --help
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from examples.triage.generate import Label, Ticket, read_jsonl

__all__ = ["Accuracy", "answer_tickets", "load_model", "parse_answer", "score"]

HERE: Final = Path(__file__).parent
MODEL: Final = HERE / "model"
TICKETS: Final = HERE / "tickets.jsonl"
FIELDS: Final = ("category", "priority", "product")
ANSWER_TOKENS: Final = 48


@dataclass(frozen=True)
class Accuracy:
    """Shares of tickets, from 0 to 1.

    Attributes:
        tickets: How many were asked.
        exact: All three fields right, and nothing but the JSON object.
        valid: A JSON object with the three fields, whatever they say.
        fields: Right answers per field.
    """

    tickets: int
    exact: float
    valid: float
    fields: Mapping[str, float]

    def __str__(self) -> str:
        parts = [f"exact {self.exact:.4f}", f"valid JSON {self.valid:.4f}"]
        parts += [f"{name} {share:.4f}" for name, share in self.fields.items()]
        return f"{self.tickets} tickets: " + ", ".join(parts)


def load_model(path: Path | str) -> tuple[Any, Any]:
    """A tokenizer and a model ready to answer, from a directory or a hub name.

    The arithmetic is float32, whatever the weights are stored in.
    """
    tokenizer = AutoTokenizer.from_pretrained(path, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    model.eval()
    return tokenizer, model


def answer_tickets(tokenizer: Any, model: Any, texts: Sequence[str], batch: int = 64) -> list[str]:
    """The model's answers in the order of the texts. Blocks for about a second per batch."""
    # Texts of similar length go together: less padding, the same answers.
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    answers = [""] * len(texts)
    for at in range(0, len(order), batch):
        chosen = order[at : at + batch]
        prompts = tokenizer.apply_chat_template(
            [[{"role": "user", "content": texts[index]}] for index in chosen],
            add_generation_prompt=True,
            padding=True,
            return_tensors="pt",
            return_dict=True,
        )
        with torch.inference_mode():
            output = model.generate(**prompts, do_sample=False, max_new_tokens=ANSWER_TOKENS)
        said = tokenizer.batch_decode(
            output[:, prompts["input_ids"].shape[1] :], skip_special_tokens=True
        )
        for index, answer in zip(chosen, said, strict=True):
            answers[index] = answer
    return answers


def parse_answer(answer: str) -> Label | None:
    """The label in an answer, or None unless it is one JSON object with exactly the fields."""
    try:
        found = json.loads(answer)
    except ValueError:
        return None
    if not isinstance(found, dict) or set(found) != set(FIELDS):
        return None
    return Label(category=found["category"], priority=found["priority"], product=found["product"])


def score(tickets: Sequence[Ticket], answers: Sequence[str]) -> Accuracy:
    """How well answers fit tickets; an answer that is not valid has no field right."""
    total = len(tickets)
    valid = exact = 0
    right = dict.fromkeys(FIELDS, 0)
    for ticket, answer in zip(tickets, answers, strict=True):
        label = parse_answer(answer)
        if label is None:
            continue
        valid += 1
        exact += label == ticket["expected"]
        for name in FIELDS:
            right[name] += label[name] == ticket["expected"][name]
    return Accuracy(
        total, exact / total, valid / total, {name: count / total for name, count in right.items()}
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m examples.triage.evaluate",
        description="Accuracy of a model over a file of labelled tickets.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="""examples:
  the shipped model on the shipped held-out tickets:
    %(prog)s
  the same model after the customers have changed their words:
    python -m examples.triage.generate --vocabulary new --count 500 --out new.jsonl
    %(prog)s --tickets new.jsonl
  the twenty tickets it gets wrong first:
    %(prog)s --mistakes 20
""",
    )
    parser.add_argument("--model", default=str(MODEL), help="directory or hub name")
    parser.add_argument("--tickets", type=Path, default=TICKETS)
    parser.add_argument("--count", type=int, help="only the first COUNT tickets")
    parser.add_argument("--mistakes", type=int, default=0, help="print this many wrong answers")
    parser.add_argument("--threads", type=int, default=2)
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the accuracy that the command line asks for."""
    asked = _parser().parse_args(arguments)
    torch.set_num_threads(asked.threads)
    tickets = read_jsonl(asked.tickets)[: asked.count]
    answers = answer_tickets(*load_model(asked.model), [ticket["text"] for ticket in tickets])
    wrong = [
        (ticket, answer)
        for ticket, answer in zip(tickets, answers, strict=True)
        if parse_answer(answer) != ticket["expected"]
    ]
    for ticket, answer in wrong[: asked.mistakes]:
        print(f"{json.dumps(ticket, ensure_ascii=False)}\n  answered: {answer}")
    print(score(tickets, answers))


if __name__ == "__main__":
    main()
