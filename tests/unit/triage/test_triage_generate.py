from collections import Counter
from pathlib import Path

import pytest

from examples.triage import generate as triage
from examples.triage.generate import MIXES, Corpus, Rule, Split, Vocabulary, generate, prioritise

SHIPPED = Path(triage.__file__).parent


def share_that_differs(left, right, of):
    return sum(of(a) != of(b) for a, b in zip(left, right, strict=True)) / len(left)


@pytest.fixture(scope="module")
def base():
    return list(generate(Corpus(), 1000))


@pytest.mark.parametrize(
    ("impact", "pressure", "before", "after"),
    [
        ("one", "none", "low", "low"),
        ("one", "soon", "normal", "normal"),
        ("one", "now", "high", "normal"),
        ("team", "none", "normal", "high"),
        ("team", "soon", "high", "high"),
        ("team", "now", "urgent", "high"),
        ("everyone", "none", "high", "urgent"),
        ("everyone", "soon", "urgent", "urgent"),
        ("everyone", "now", "urgent", "urgent"),
    ],
)
def test_priority_follows_from_impact_and_pressure(impact, pressure, before, after):
    assert prioritise(impact, pressure) == before
    assert prioritise(impact, pressure, Rule.CHANGED) == after


def test_a_range_of_the_corpus_is_generated_alike_without_the_rest(base):
    assert list(generate(Corpus(), 50, start=300)) == base[300:350]


def test_the_seed_decides_the_corpus(base):
    other = list(generate(Corpus(seed=8), 1000))
    assert share_that_differs(base, other, of=lambda t: t["text"]) > 0.99


@pytest.mark.parametrize(
    ("name", "split"), [("tickets.jsonl", Split.HELD_OUT), ("train.jsonl", Split.TRAIN)]
)
def test_the_shipped_files_are_what_the_generator_writes(name, split):
    shipped = (SHIPPED / name).read_bytes()
    lines = triage.write_jsonl(generate(Corpus(split), shipped.count(b"\n")))
    assert "".join(lines).encode() == shipped


def test_labels_are_balanced(base):
    for name, values in (
        ("category", triage.CATEGORIES),
        ("priority", triage.PRIORITIES),
        ("product", triage.PRODUCTS),
    ):
        counts = Counter(ticket["expected"][name] for ticket in base)
        assert set(counts) == set(values)
        fair = len(base) / len(values)
        assert all(0.75 * fair < count < 1.25 * fair for count in counts.values()), counts


def test_no_text_is_in_both_splits(base):
    train = {t["text"].casefold() for t in generate(Corpus(Split.TRAIN), 20_000)}
    assert not train & {t["text"].casefold() for t in base}


@pytest.mark.parametrize("vocabulary", list(Vocabulary))
def test_every_held_out_ticket_has_an_unseen_template(monkeypatch, vocabulary):
    unseen = Counter()
    choose = triage._fill

    def spy(template, rng, values):
        unseen[current] += template in reserved
        return choose(template, rng, values)

    reserved = set(_templates("held_out", triage._banks()))
    assert not reserved & set(_templates("train", triage._banks()))
    monkeypatch.setattr(triage, "_fill", spy)
    for split, holds in ((Split.HELD_OUT, lambda n: n > 0), (Split.TRAIN, lambda n: n == 0)):
        corpus = Corpus(split, vocabulary=vocabulary)
        for current in range(200):
            unseen.clear()
            list(generate(corpus, 1, start=current))
            assert holds(unseen[current])


def _templates(split, bank):
    for name, value in bank.items():
        if isinstance(value, dict):
            yield from _templates(split, value)
        elif name == split:
            yield from value


def test_new_vocabulary_changes_texts_only(base):
    new = list(generate(Corpus(vocabulary=Vocabulary.NEW), 1000))
    assert share_that_differs(base, new, of=lambda t: t["text"]) == 1
    assert share_that_differs(base, new, of=lambda t: t["expected"]) == 0


def test_a_changed_rule_changes_priorities_only(base):
    changed = list(generate(Corpus(rule=Rule.CHANGED), 1000))
    assert share_that_differs(base, changed, of=lambda t: t["text"]) == 0
    assert share_that_differs(base, changed, of=lambda t: t["expected"]["category"]) == 0
    assert share_that_differs(base, changed, of=lambda t: t["expected"]["product"]) == 0
    assert 0.25 < share_that_differs(base, changed, of=lambda t: t["expected"]["priority"]) < 0.5


def test_a_changed_mix_changes_categories_only(base):
    changed = list(generate(Corpus(mix=MIXES["incident"]), 1000))
    counts = Counter(ticket["expected"]["category"] for ticket in changed)
    assert counts["bug"] + counts["performance"] == pytest.approx(750, abs=50)
    for name in ("priority", "product"):
        assert share_that_differs(base, changed, of=lambda t, name=name: t["expected"][name]) == 0


def test_the_share_is_the_part_that_drifts(base):
    half = list(generate(Corpus(vocabulary=Vocabulary.NEW, share=0.5), 1000))
    drifted = share_that_differs(base, half, of=lambda t: t["text"])
    assert drifted == pytest.approx(0.5, abs=0.05)


def test_the_command_line_writes_what_the_functions_give(tmp_path, capsys, base):
    triage.main(["--count", "5", "--mix", "bug=1", "--out", str(tmp_path / "some.jsonl")])
    assert {t["expected"]["category"] for t in triage.read_jsonl(tmp_path / "some.jsonl")} == {
        "bug"
    }
    triage.main(["--count", "3"])
    assert capsys.readouterr().out == "".join(triage.write_jsonl(base[:3]))


def test_a_ticket_that_holds_what_ends_lines_elsewhere_is_read_whole(tmp_path, base):
    ticket = {**base[0], "text": "a\u2028b\x85c"}
    path = tmp_path / "some.jsonl"
    path.write_text("".join(triage.write_jsonl([ticket])), encoding="utf-8")
    assert triage.read_jsonl(path) == [ticket]


@pytest.mark.parametrize("mix", ["nonsense", "bug=0", "bug=x", "parking=1"])
def test_a_mix_that_means_nothing_is_refused_with_what_is_known(mix, capsys):
    with pytest.raises(SystemExit):
        triage.main(["--mix", mix])
    assert "known: base, incident" in capsys.readouterr().err
