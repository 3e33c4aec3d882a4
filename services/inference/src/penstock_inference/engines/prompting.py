"""Conversations as the chat template gets them, with passages in their place. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from penstock_inference.engines.generation import Generation, Passage

__all__ = ["conversation"]


def conversation(generation: Generation) -> list[dict[str, str]]:
    """The turns to render; empty where the prompt is to be continued as it is.

    Passages become a turn of their own before the last user turn; the variant's system prompt
    stands before everything. A prompt with either is rendered as a conversation too, since there is
    no other place for them.
    """
    turns = [{"role": m.role, "content": m.content} for m in generation.messages]
    if not generation.passages and not generation.system_prompt:
        return turns
    if not turns:
        turns = [{"role": "user", "content": generation.prompt}]
    if generation.passages:
        last_user = max((i for i, turn in enumerate(turns) if turn["role"] == "user"), default=0)
        turns.insert(last_user, {"role": "system", "content": _rendered(generation.passages)})
    if generation.system_prompt:
        turns.insert(0, {"role": "system", "content": generation.system_prompt})
    return turns


def _rendered(passages: Sequence[Passage]) -> str:
    return "\n\n".join(f"[{passage.name}] {passage.text}" for passage in passages)
