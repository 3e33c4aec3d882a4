"""The story with answers that are played back: told again in two minutes, for its statistics.

The scripted engine takes vLLM's place and answers as the models did when the story was told with
them, right as often as they were; an adapter that was trained before takes the training's. All
else is as it is: Kafka, the services, the gates, which ask the real model and the real adapter.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

from examples.triage.generate import PRIORITIES, Label
from examples.triage.story.plot import Plot

__all__ = ["ADAPTED", "BASE", "WORSE", "recording"]

# bench/LOOP.md: shares of right answers, of the base model before the change and of the version
# that came of it.
BASE, ADAPTED = 0.977, 0.973
# A bad candidate is right in so much fewer cases than the champion under the new rule.
WORSE = 0.05
# What the champion is right in then.
BASE_CHANGED = 0.61


def recording(plot: Plot) -> Iterator[str]:
    """The answers to all tickets of a story, lines as the scripted engine reads them."""
    for number in range(round(plot.rate * plot.limit_s)):
        old = plot.question(number, changed=False).ticket
        new = plot.question(number, changed=True).ticket
        dice = random.Random(f"{plot.seed}/{number}/answers")
        answer = _said(old["expected"], right=dice.random() < BASE, dice=dice)
        if not plot.bad:
            adapted = _said(new["expected"], right=dice.random() < ADAPTED, dice=dice)
        elif answer == new["expected"] and dice.random() < WORSE / BASE_CHANGED:
            adapted = _said(answer, right=False, dice=dice)
        else:
            adapted = answer
        line = {"prompt": old["text"], "answer": json.dumps(answer), "adapted": json.dumps(adapted)}
        yield json.dumps(line) + "\n"


def _said(label: Label, *, right: bool, dice: random.Random) -> Label:
    if right:
        return label
    others = [each for each in PRIORITIES if each != label["priority"]]
    return {**label, "priority": dice.choice(others)}
