"""What happens in the story, and when. Pure."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path
from typing import Any

import yaml

from examples.triage.generate import Corpus, Rule, Ticket, generate

__all__ = ["RAY", "STAGES", "Plot", "Question"]

# Of a job, by their states.
STAGES = ("dataset", "training", "evaluating", "registering", "shadow", "canary")
# What else can be killed: Ray's head.
RAY = "ray"
HERE = Path(__file__).parent
# What the engines' model is called, whatever the name is that tickets are asked of.
BASE = "triage"


@dataclasses.dataclass(frozen=True)
class Question:
    """A ticket that is sent.

    Attributes:
        ticket: The ticket and its right answer.
        judged: Whether somebody says what the right answer is.
    """

    ticket: Ticket
    judged: bool


@dataclasses.dataclass(frozen=True)
class Plot:
    """How the story goes.

    Attributes:
        bad: Whether the candidate is made badly, and has to be rolled back.
        changes: Whether the rule changes at all; without, nothing may happen.
        seed: Of the tickets, and of which answers are judged.
        rate: Tickets per second.
        quiet_s: How long all is as the model knows it.
        feedback: The share of the answers that somebody judges.
        after_s: How long it goes on after the end, to see what it has come to.
        limit_s: The story is broken off then.
        kill: The job's state in which the service retrain is killed; or `RAY`, whose head is
            killed in the middle of the training; empty: nothing is.
        adapter: Where it is told with answers that are played back (`story.recorded`): the
            adapter that is taken in instead of a training.
        model: What the tickets are asked of, by name.
    """

    bad: bool = False
    changes: bool = True
    seed: int = 1
    rate: float = 20.0
    quiet_s: float = 60.0
    feedback: float = 0.6
    after_s: float = 30.0
    limit_s: float = 600.0
    kill: str = ""
    adapter: Path | None = None
    model: str = BASE

    @property
    def champion(self) -> str:
        """The variant that answers at first."""
        return f"{self.model}-base"

    def question(self, number: int, *, changed: bool) -> Question:
        """The ticket of a number; the change turns the rule for priorities and nothing else."""
        corpus = Corpus(seed=1000 + self.seed, rule=Rule.CHANGED if changed else Rule.BASE)
        (ticket,) = generate(corpus, 1, number)
        judged = random.Random(f"{self.seed}/{number}").random() < self.feedback
        return Question(ticket, judged)

    @property
    def policy(self) -> dict[str, Any]:
        """Of retrain's jobs."""
        made = _read("retrain.yaml")
        if self.bad:
            made |= _read("retrain-bad.yaml")
        if self.adapter is not None:
            imported = {"adapter": self.adapter.name}
            made["training"] = {"method": "imported", "imported": imported}
        return made

    @property
    def drift_policy(self) -> Path:
        """What drift looks for."""
        return HERE / "drift.yaml"


def _read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((HERE / name).read_text(encoding="utf-8"))
    return found
