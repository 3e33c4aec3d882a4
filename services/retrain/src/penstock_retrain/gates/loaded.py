"""A suite with its examples. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from penstock_retrain.gates.examples import ORIGINAL, Example, Question
from penstock_retrain.gates.suite import Suite

__all__ = ["LoadedSuite"]


@dataclasses.dataclass(frozen=True)
class LoadedSuite:
    """A suite with its examples.

    Attributes:
        suite: What was written.
        examples: Originals, then variants.
        digest: SHA-256 of rules and examples.
    """

    suite: Suite
    examples: tuple[Example, ...]
    digest: str

    def sliced(self, name: str) -> list[Example]:
        """A slice's examples."""
        wanted = self.suite.slices.get(name)
        if wanted is not None:
            return [e for e in self.examples if not e.variant and _fits(e, wanted)]
        variant = "" if name == ORIGINAL else name
        return [e for e in self.examples if e.variant == variant]

    def questions(self) -> list[Question]:
        """What contenders are asked."""
        most = self.suite.answers.max_tokens
        return [Question(e.digest, e.messages, e.prompt, most) for e in self.examples]


def _fits(example: Example, wanted: Mapping[str, str]) -> bool:
    return all(_value(example, key) == value for key, value in wanted.items())


def _value(example: Example, key: str) -> str | None:
    if key.startswith("expected."):
        found = example.expected
        if not isinstance(found, dict):
            return None
        value = found.get(key.removeprefix("expected."))
        return None if value is None else str(value)
    return example.labels.get(key.removeprefix("label."))
