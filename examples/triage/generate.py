"""A seeded generator of synthetic support tickets, with knobs for drift.

A ticket is decided by (seed, split, index) alone, so any range of the corpus can be generated
again, byte for byte, without the rest. Each aspect of a ticket (category, product, urgency,
wording) has a random stream of its own: a knob that turns one leaves the others as they were.

Run it from the root of the repository:

    python -m examples.triage.generate --help
"""

import argparse
import functools
import json
import random
import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, TypedDict

__all__ = [
    "CATEGORIES",
    "MIXES",
    "PRIORITIES",
    "PRODUCTS",
    "Corpus",
    "Label",
    "Rule",
    "Split",
    "Ticket",
    "Vocabulary",
    "generate",
    "prioritise",
    "read_jsonl",
    "write_jsonl",
]

WORDING_FILE: Final = Path(__file__).with_name("wording.toml")

CATEGORIES: Final = (
    "billing",
    "access",
    "bug",
    "performance",
    "integration",
    "feature_request",
)
PRODUCTS: Final = ("atlas", "beacon", "courier", "harbor", "lantern", "quill")
PRIORITIES: Final = ("low", "normal", "high", "urgent")
IMPACTS: Final = ("one", "team", "everyone")
PRESSURES: Final = ("none", "soon", "now")

# Weights of the categories. `base` is balanced; the others are what a bad release or the end of
# a billing period do to a help desk.
MIXES: Final[Mapping[str, Mapping[str, float]]] = {
    "base": dict.fromkeys(CATEGORIES, 1.0),
    "incident": {**dict.fromkeys(CATEGORIES, 1.0), "bug": 6.0, "performance": 6.0},
    "renewals": {**dict.fromkeys(CATEGORIES, 1.0), "billing": 10.0, "access": 3.0},
}

ALTERNATION = re.compile(r"\[([^\[\]]*)\]")
SLOT = re.compile(r"\{([a-z_]+)\}")
SENTENCE_START = re.compile(r"(^|[.!?:]\s+|\n+)([a-z])")


# The share of tickets that mention a product which is not the matter. A model of this size takes
# either of two products, whatever is said of them, so it bounds the accuracy.
DISTRACTED: Final = 0.02


class Split(StrEnum):
    """Which part of the corpus: no held-out ticket is made of training templates alone."""

    TRAIN = "train"
    HELD_OUT = "held-out"


class Vocabulary(StrEnum):
    """Which words the tickets are written in."""

    BASE = "base"
    NEW = "new"


class Rule(StrEnum):
    """How impact and time pressure make a priority."""

    BASE = "base"
    CHANGED = "changed"


class Label(TypedDict):
    """What the model has to answer, in this order of keys."""

    category: str
    priority: str
    product: str


class Ticket(TypedDict):
    """One line of a corpus file."""

    ticket_id: str
    text: str
    expected: Label


@dataclass(frozen=True)
class Corpus:
    """What to generate. The defaults are the distribution that the shipped model was trained on.

    Attributes:
        split: Which templates may be used.
        seed: Two corpora with different seeds share tickets by accident only.
        vocabulary: The words for problems and products; labels stay as they are.
        mix: Weight per category; products and priorities stay as they are.
        rule: How the priority is labelled; texts stay as they are.
        share: The share of tickets that the three knobs apply to, from 0 to 1: the slope of a
            gradual drift.
        plain: Only the problem and its urgency: no greeting, aside, noise or mistyped word.
            Training starts with these.
    """

    split: Split = Split.HELD_OUT
    seed: int = 7
    vocabulary: Vocabulary = Vocabulary.BASE
    mix: Mapping[str, float] = field(default_factory=lambda: MIXES["base"])
    rule: Rule = Rule.BASE
    share: float = 1.0
    plain: bool = False


def prioritise(impact: str, pressure: str, rule: Rule = Rule.BASE) -> str:
    """The priority of a ticket from who is affected and how much time there is.

    Under the base rule both count the same: no point is `low`, one `normal`, two `high`, more
    `urgent`. The changed rule puts impact first: everyone is `urgent`, a team is `high`, and one
    person never gets beyond `normal`.
    """
    affected, pressing = IMPACTS.index(impact), PRESSURES.index(pressure)
    if rule is Rule.BASE:
        return PRIORITIES[min(affected + pressing, 3)]
    return PRIORITIES[affected + 1] if affected else PRIORITIES[min(pressing, 1)]


def generate(corpus: Corpus, count: int, start: int = 0) -> Iterator[Ticket]:
    """The tickets with the indexes from `start` to `start + count - 1`."""
    for index in range(start, start + count):
        yield _ticket(corpus, index)


def write_jsonl(tickets: Iterable[Ticket]) -> Iterator[str]:
    """The lines of a corpus file, each with its line end."""
    for ticket in tickets:
        yield json.dumps(ticket, ensure_ascii=False) + "\n"


def read_jsonl(path: Path) -> list[Ticket]:
    """The tickets of a corpus file."""
    # A file's lines end at line feeds only; `str.splitlines` would end them within texts, too.
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def _ticket(corpus: Corpus, index: int) -> Ticket:
    def stream(aspect: str) -> random.Random:
        return random.Random(f"{corpus.seed}/{corpus.split}/{index}/{aspect}")

    base = Corpus(corpus.split, corpus.seed)
    effective = corpus if stream("drift").random() < corpus.share else base
    weights = [effective.mix.get(category, 0.0) for category in CATEGORIES]
    category = stream("category").choices(CATEGORIES, weights)[0]
    product = stream("product").choice(PRODUCTS)
    impact, pressure = _draw_urgency(stream("urgency"))
    wording = _Wording(effective.split, effective.vocabulary, stream)
    if effective.plain:
        text = _plain(wording, category, product, (impact, pressure), stream("layout"))
    else:
        text = _compose(wording, category, product, (impact, pressure), stream("layout"))
        text = _roughen(text, stream("typing"))
    prefix = "T" if corpus.split is Split.HELD_OUT else "L"
    return {
        "ticket_id": f"{prefix}-{index + 1:05d}",
        "text": text,
        "expected": {
            "category": category,
            "priority": prioritise(impact, pressure, effective.rule),
            "product": product,
        },
    }


def _draw_urgency(rng: random.Random) -> tuple[str, str]:
    """A pair of impact and pressure, such that the four priorities are equally frequent."""
    priority = rng.choice(PRIORITIES)
    pairs = [(i, p) for i in IMPACTS for p in PRESSURES if prioritise(i, p) == priority]
    return rng.choice(pairs)


@functools.cache
def _banks() -> Mapping[str, Any]:
    """The word banks as they lie in the file, read once."""
    with WORDING_FILE.open("rb") as source:
        return tomllib.load(source)


class _Wording:
    """Chooses templates that the split may use, and fills them.

    Each bank is read through a random stream of its own, so a longer list in one place does not
    shift the choices in another.
    """

    def __init__(
        self, split: Split, vocabulary: Vocabulary, stream: Callable[[str], random.Random]
    ) -> None:
        self._split = split
        self._vocabulary = vocabulary
        self._stream = stream
        # At least one of problem and frame has to be unseen in a held-out ticket.
        self._reserved: set[str] = stream("reserved").choice(
            [{"clause"}, {"frame"}, {"clause", "frame"}, {"clause", "urgency"}]
        )

    def say(self, bank: str, key: str = "", **values: str) -> str:
        """A phrase of a bank, filled; `key` names the list where the bank has several."""
        rng = self._stream(f"{bank}/{key}")
        lists: Mapping[str, Any] = _banks()[bank]
        if bank == "clause":
            lists = lists[self._vocabulary]
        if key:
            lists = lists[key]
        unseen = self._split is Split.HELD_OUT and (bank in self._reserved or rng.random() < 0.25)
        return _fill(rng.choice(lists["held_out" if unseen else "train"]), rng, values)

    def mention(self, product: str) -> str:
        """A name or a description of a product."""
        rng = self._stream(f"mention/{product}")
        return _fill(rng.choice(_banks()["product"][self._vocabulary][product]), rng, {})


def _fill(template: str, rng: random.Random, values: Mapping[str, str]) -> str:
    """Resolves [a|b] and {slot} from the inside out; `values` go before the common slots."""
    slots = _banks()["slots"]

    def value(match: re.Match[str]) -> str:
        name = match[1]
        return values[name] if name in values else rng.choice(slots[name])

    while ALTERNATION.search(template):
        template = ALTERNATION.sub(lambda match: rng.choice(match[1].split("|")), template)
    while SLOT.search(template):
        template = SLOT.sub(value, template)
    return template


def _plain(
    wording: _Wording,
    category: str,
    product: str,
    urgency: tuple[str, str],
    rng: random.Random,
) -> str:
    """The shortest text that decides all three labels."""
    clause = wording.say("clause", category)
    problem = wording.say("frame", product=wording.mention(product), clause=clause)
    return " ".join(filter(None, [problem, _urgency_sentence(wording, urgency, rng)]))


def _compose(
    wording: _Wording,
    category: str,
    product: str,
    urgency: tuple[str, str],
    rng: random.Random,
) -> str:
    """The text of a ticket before anybody mistypes it."""
    clause = wording.say("clause", category)
    body = [wording.say("frame", product=wording.mention(product), clause=clause)]
    if urgent := _urgency_sentence(wording, urgency, rng):
        body.append(urgent)
    if rng.random() < 0.3:
        other_category = rng.choice([name for name in CATEGORIES if name != category])
        body.append(wording.say("aside", other_clause=wording.say("clause", other_category)))
    if rng.random() < DISTRACTED:
        other = rng.choice([name for name in PRODUCTS if name != product])
        body.append(wording.say("distractor", other=wording.mention(other)))
    if rng.random() < 0.3:
        body.append(wording.say("noise"))
    rng.shuffle(body)
    greeting = wording.say("greeting") + rng.choice(["\n", " "]) if rng.random() < 0.5 else ""
    closing = rng.choice(["\n", " "]) + wording.say("closing") if rng.random() < 0.4 else ""
    text = rng.choice([" ", " ", "\n"]).join(body)
    return greeting + SENTENCE_START.sub(lambda m: m[1] + m[2].upper(), text) + closing


def _urgency_sentence(
    wording: _Wording, urgency: tuple[str, str], rng: random.Random
) -> str | None:
    """What the ticket says on urgency. The lowest step of either scale may go unsaid."""
    impact, pressure = urgency
    say_impact = impact != IMPACTS[0] or rng.random() < 0.6
    say_pressure = pressure != PRESSURES[0] or rng.random() < 0.6
    affected, pressing = wording.say("impact", impact), wording.say("pressure", pressure)
    if say_impact and say_pressure:
        return wording.say("urgency", impact=affected, pressure=pressing)
    if say_impact:
        return f"{affected}."
    return f"{pressing}{rng.choice(['.', '!', '.'])}" if say_pressure else None


def _roughen(text: str, rng: random.Random) -> str:
    """What typing does: lost capitals, lost full stops, and up to two mistyped words."""
    if rng.random() < 0.15:
        text = text.lower()
    if rng.random() < 0.1:
        text = text.replace(". ", " ... ")
    words = text.split(" ")
    for _ in range(rng.choice([0, 0, 0, 1, 1, 2])):
        position = rng.randrange(len(words))
        if words[position].isalpha() and len(words[position]) > 3:
            words[position] = _mistype(words[position], rng)
    return " ".join(words)


def _mistype(word: str, rng: random.Random) -> str:
    at = rng.randrange(1, len(word) - 1)
    return rng.choice(
        [
            word[:at] + word[at + 1] + word[at] + word[at + 2 :],  # swapped
            word[:at] + word[at + 1 :],  # dropped
            word[:at] + word[at] + word[at:],  # doubled
        ]
    )


def parse_mix(text: str) -> Mapping[str, float]:
    """A mix by name, or as weights: `billing=5,bug=1` (what is not named does not occur).

    Raises:
        argparse.ArgumentTypeError: On an unknown name or category, or weights that are all zero.
    """
    if text in MIXES:
        return MIXES[text]
    try:
        weights = {name: float(weight) for name, weight in (p.split("=") for p in text.split(","))}
    except ValueError:
        weights = {}
    if not set(weights) <= set(CATEGORIES) or sum(weights.values()) <= 0:
        known = ", ".join([*MIXES, *(f"{name}=WEIGHT" for name in CATEGORIES)])
        raise argparse.ArgumentTypeError(f"{text!r} is no mix; known: {known}")
    return weights


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m examples.triage.generate",
        description="Generate synthetic support tickets, one JSON object a line.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="""examples:
  the shipped held-out set, byte for byte:
    %(prog)s --split held-out --count 1200 --out examples/triage/tickets.jsonl
  tickets in words the model has never seen, to train on:
    %(prog)s --split train --vocabulary new --count 4000 --out new.jsonl
  a bad release: bugs and slowness make up most of the tickets:
    %(prog)s --mix incident --count 500
  a mix of one's own, from ticket 2,001 on:
    %(prog)s --mix billing=5,bug=1 --start 2000 --count 500
  half of the tickets labelled by a new policy for priorities:
    %(prog)s --rule changed --share 0.5 --count 500
""",
    )
    add = parser.add_argument
    add("--split", type=Split, choices=list(Split), default=Split.HELD_OUT)
    add("--count", type=int, default=1200, help="how many tickets (default: 1200)")
    add("--start", type=int, default=0, help="index of the first ticket (default: 0)")
    add("--seed", type=int, default=7, help="seed of the corpus (default: 7)")
    add("--vocabulary", type=Vocabulary, choices=list(Vocabulary), default=Vocabulary.BASE)
    add("--mix", type=parse_mix, default="base", help="base, incident, renewals, or weights")
    add("--rule", type=Rule, choices=list(Rule), default=Rule.BASE)
    add("--share", type=float, default=1.0, help="share of tickets the knobs apply to (1.0)")
    add("--out", type=Path, help="file to write (default: standard output)")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the tickets that the command line asks for."""
    asked = _parser().parse_args(arguments)
    corpus = Corpus(
        asked.split, asked.seed, asked.vocabulary, asked.mix, asked.rule, share=asked.share
    )
    lines = write_jsonl(generate(corpus, asked.count, asked.start))
    if asked.out:
        asked.out.write_text("".join(lines), encoding="utf-8", newline="\n")
    else:
        sys.stdout.writelines(lines)


if __name__ == "__main__":
    main()
