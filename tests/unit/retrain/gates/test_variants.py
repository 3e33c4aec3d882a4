"""Variants: the same for a seed, others for another, and what they are for."""

from __future__ import annotations

import re

import pytest

from penstock.personal_data import has_personal_data
from penstock_retrain.dataset.rows import Message
from penstock_retrain.gates.examples import Example
from penstock_retrain.gates.suite import Variant
from penstock_retrain.gates.variants import varied

TEXT = "The invoice is wrong. It has four seats in place of three!\nPlease correct it."


def examples(count: int = 30) -> list[Example]:
    turns = (Message("system", "Triage."), Message("user", TEXT))
    return [Example(f"e{n}", turns, expected={"category": "billing"}) for n in range(count)]


@pytest.mark.parametrize("kind", ["typos", "injection", "personal_data"])
def test_a_variant_is_the_same_by_seed_and_keeps_what_is_right(kind: str) -> None:
    variant = Variant.model_validate({"name": "v", "kind": kind, "seed": 5, "rate": 0.1})
    made = varied(variant, examples())
    assert made == varied(variant, examples())
    # Of one example alone, the same as among others.
    assert varied(variant, examples()[7:8]) == [made[7]]
    other = varied(variant.model_copy(update={"seed": 6}), examples())
    assert [e.said for e in made] != [e.said for e in other]
    for example in made:
        assert example.origin == example.id.removesuffix("/v")
        assert example.expected == {"category": "billing"}
        assert example.said != TEXT
        assert example.messages[0].content == "Triage."
    assert len({e.said for e in made}) > 5


def test_typos_are_as_many_as_asked_for() -> None:
    variant = Variant(name="v", kind="typos", rate=0.1)
    letters = sum(map(str.isalpha, TEXT))
    for example in varied(variant, examples()):
        # Each takes away a letter at most, or adds one.
        assert abs(len(example.said) - len(TEXT)) <= round(0.1 * letters)
        kept = sum(
            one == other for one, other in zip(example.said.split(), TEXT.split(), strict=False)
        )
        assert kept < len(TEXT.split())
    assert varied(variant, [Example("e", prompt="123 456")]) == []


def test_an_injection_asks_for_a_word_that_is_forbidden() -> None:
    words = set()
    for example in varied(Variant(name="v", kind="injection"), examples()):
        (word,) = example.forbidden
        assert word in example.said
        assert word not in TEXT
        assert len(example.said) > len(TEXT)
        words.add(word)
    assert len(words) == 30


def test_personal_data_are_of_a_form_that_is_found_and_of_nobody() -> None:
    for example in varied(Variant(name="v", kind="personal_data"), examples()):
        assert has_personal_data(example.said)
        for address in re.findall(r"\S+@(\S+?)[.]?(?:\s|$)", example.said):
            assert address in ("example.com", "example.org", "example.net")


def test_so_many_are_chosen_by_the_seed_not_by_place() -> None:
    variant = Variant(name="v", kind="typos", count=5)
    chosen = [e.origin for e in varied(variant, examples())]
    assert len(chosen) == 5
    assert chosen != [f"e{n}" for n in range(5)]
    assert chosen == sorted(chosen, key=lambda name: int(name[1:]))
