"""Hashed n-grams: the same everywhere, of length 1, and near for what is spelled alike."""

from __future__ import annotations

import numpy as np
import pytest

from penstock_inference.caching.embedding import HashedNgrams

EMBEDDER = HashedNgrams()


def cosine(one: str, other: str) -> float:
    first, second = EMBEDDER.embed([one, other])
    return float(first @ second)


def test_vectors_are_the_same_on_every_machine() -> None:
    vector = HashedNgrams(dimensions=16).embed(["Grüße, my invoice is wrong"])[0]
    assert vector.dtype == np.float32
    thousandths = [79, 0, 79, 158, 0, 79, 394, -158, 158, -788, 158, -79, 0, 0, 0, 315]
    assert (vector * 1000).round().astype(int).tolist() == thousandths


@pytest.mark.parametrize(
    ("one", "other", "least", "most"),
    [
        ("My invoice is wrong", "  my INVOICE\nis wrong ", 1.0, 1.0),
        ("My invoice is wrong", "My invioce is wrong", 0.6, 0.9),
        ("My invoice is wrong", "The bill does not add up", -0.2, 0.2),
        ("x", "x", 1.0, 1.0),  # shorter than an n-gram
        ("文件打不开", "文件打不开了", 0.5, 0.99),
    ],
)
def test_spelling_decides(one: str, other: str, least: float, most: float) -> None:
    assert least - 1e-6 <= cosine(one, other) <= most + 1e-6


def test_texts_without_words_are_alike_to_nothing() -> None:
    rows = EMBEDDER.embed(["", "?!", "words"])
    assert np.linalg.norm(rows, axis=1).tolist() == pytest.approx([0, 0, 1])
    assert EMBEDDER.embed([]).shape == (0, EMBEDDER.dimensions)


def test_dimensions_are_a_power_of_two() -> None:
    with pytest.raises(ValueError, match="power of two"):
        HashedNgrams(dimensions=1000)
    assert HashedNgrams(dimensions=512).name != EMBEDDER.name
