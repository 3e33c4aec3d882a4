"""Tickets as a help desk gets them: some come again retyped, some are like another but for a word.

The semantic cache is calibrated with it (docs/caching.md). A line is a ticket of `generate.py`, or
one that came before:

- retyped: other letter case, mistyped words, another beginning or end; the answer is the same;
- near: the same words about another product; the answer is another.

Run it from the root of the repository:

    python -m examples.triage.repeats --help
"""

import argparse
import json
import random
import re
from collections.abc import Iterator

from examples.triage.generate import PRODUCTS, Corpus, Ticket, generate

__all__ = ["stream"]

OPENINGS = ("", "", "Hi again, ", "Reminder: ", "Sending this once more. ", "Hello, ")
ENDINGS = ("", "", " Any news?", "\nPlease reply.", " Thanks!", " Regards")
NAMED = re.compile(rf"\b({'|'.join(PRODUCTS)})\b", re.IGNORECASE)


def stream(count: int, retyped: float, near: float, seed: int) -> Iterator[tuple[Ticket, str]]:
    """Tickets in the order of their arrival, each with how it came to be.

    Args:
        count: How many.
        retyped: The share that repeats an earlier ticket.
        near: The share that is an earlier one but for the product's name.
        seed: Equal arguments give equal tickets.
    """
    rng = random.Random(f"repeats/{seed}")
    fresh = generate(Corpus(seed=seed), count)
    past: list[Ticket] = []
    for _ in range(count):
        drawn, ticket, kind = rng.random(), next(fresh), "fresh"
        if past and drawn < retyped:
            ticket, kind = _retyped(rng.choice(past), rng), "retyped"
        elif past and drawn < retyped + near:
            other = _of_another_product(rng.choice(past), rng)
            if other is not None:
                ticket, kind = other, "near"
        past.append(ticket)
        yield ticket, kind


def _retyped(ticket: Ticket, rng: random.Random) -> Ticket:
    text = ticket["text"]
    if rng.random() < 0.2:
        text = text.lower()
    words = text.split(" ")
    for _ in range(rng.randrange(4)):
        at = rng.randrange(len(words))
        # The product's name decides an answer: a mistyped one could be taken for another.
        if words[at].isalpha() and len(words[at]) > 3 and not NAMED.search(words[at]):
            words[at] = _swapped(words[at], rng)
    text = rng.choice(OPENINGS) + " ".join(words) + rng.choice(ENDINGS)
    return {**ticket, "text": text}


def _swapped(word: str, rng: random.Random) -> str:
    at = rng.randrange(len(word) - 1)
    return word[:at] + word[at + 1] + word[at] + word[at + 2 :]


def _of_another_product(ticket: Ticket, rng: random.Random) -> Ticket | None:
    """The ticket with another product's name; None where it names none, or more than one."""
    named = {name.lower() for name in NAMED.findall(ticket["text"])}
    if named != {ticket["expected"]["product"]}:
        return None
    product = rng.choice([name for name in PRODUCTS if name not in named])
    text = NAMED.sub(lambda m: product.title() if m[0][0].isupper() else product, ticket["text"])
    return {**ticket, "text": text, "expected": {**ticket["expected"], "product": product}}


def main() -> None:
    """Prints the stream, one JSON object a line."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.triage.repeats",
        description="Print tickets of which some repeat earlier ones, one JSON object a line.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="""example: a threshold for the semantic cache
  %(prog)s --count 6000 > stream.jsonl
  penstock cache pairs stream.jsonl --answer-field expected > pairs.jsonl
  penstock cache calibrate --pairs pairs.jsonl --max-false-hit-rate 0.01
""",
    )
    add = parser.add_argument
    add("--count", type=int, default=6000, help="how many tickets (default: 6000)")
    add("--retyped", type=float, default=0.3, help="share of repeats, retyped (default: 0.3)")
    add("--near", type=float, default=0.05, help="share that differs in the product (0.05)")
    add("--seed", type=int, default=11, help="seed of the stream (default: 11)")
    asked = parser.parse_args()
    for ticket, kind in stream(asked.count, asked.retyped, asked.near, asked.seed):
        print(json.dumps({**ticket, "kind": kind}, ensure_ascii=False))


if __name__ == "__main__":
    main()
