"""What dies in the middle of a story, at once and without a word."""

from __future__ import annotations

import asyncio

import psutil

from examples.triage.story.chronicle import Chronicle
from examples.triage.story.plot import RAY
from penstock_native.stack import Stack

__all__ = ["due", "strike"]

# Processes of a Ray that a training has started: the head's, and its node's.
RAYS = ("gcs_server", "raylet")


def due(kill: str, chronicle: Chronicle) -> bool:
    """Whether it is time: the job is in that stage, or a training in the middle of its steps."""
    if kill == RAY:
        return chronicle.steps > 0
    return kill in chronicle.states


async def strike(kill: str, stack: Stack) -> str:
    """Kills what is to be killed; says what that was."""
    if kill != RAY:
        await asyncio.to_thread(stack.kill, "retrain")
        return "the service retrain is killed"
    training = psutil.Process(stack.pid("retrain")).children(recursive=True)
    for process in training:
        # The kernel cuts names short.
        if process.name().startswith(RAYS):
            process.kill()
    return "the head of Ray is killed"
