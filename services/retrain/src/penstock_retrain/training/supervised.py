"""What methods have in common that learn from right answers, by TRL's SFTTrainer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from penstock_retrain.dataset.examples import Example
from penstock_retrain.training.method import Setup
from penstock_retrain.training.models import answers, load_model, scores
from penstock_retrain.training.rows import Tokenizer, TokenRow, tokens_of
from penstock_retrain.training.scores import exact_match, of_answers

__all__ = ["Supervised", "measured_answers", "supervised_trainer"]


class Supervised:
    """Rows and measures of a method that learns from right answers."""

    needs = "a right answer"

    def rows(
        self, examples: Sequence[Example], tokenizer: Tokenizer, max_tokens: int
    ) -> tuple[list[TokenRow], Counter[str]]:
        """See `Method`."""
        return tokens_of(examples, tokenizer, max_tokens)

    def measure(self, setup: Setup, model: Any) -> dict[str, float]:
        """See `Method`: loss, likeliest tokens, and right answers of those that are asked."""
        held_out: Sequence[TokenRow] = setup.held_out
        found = scores(model, [row.right for row in held_out], setup.tokenizer.pad_token_id)
        asked = [(row.right.prompt, row.target) for row in held_out]
        return of_answers(found) | measured_answers(setup, model, asked)


def measured_answers(
    setup: Setup, model: Any, asked: Sequence[tuple[Sequence[int], str]]
) -> dict[str, float]:
    """The share of right ones among greedy answers; empty where the policy asks for none."""
    wanted = setup.policy.evaluation
    chosen = asked[: wanted.answers]
    if not chosen:
        return {}
    prompts = [prompt for prompt, _ in chosen]
    said = answers(model, setup.tokenizer, prompts, wanted.answer_tokens)
    return {"held_out_exact_match": exact_match(said, [target for _, target in chosen])}


def supervised_trainer(setup: Setup, adapter: Any = None) -> Any:
    """TRL's trainer for right answers.

    Args:
        setup: What it trains with.
        adapter: PEFT's configuration; None trains all weights.
    """
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    # Rows are tokens with labels already: the trainer neither cuts nor renders them.
    config = SFTConfig(**setup.arguments(), max_length=None)
    held_out = [row.right.row() for row in setup.held_out]
    return SFTTrainer(
        model=load_model(setup.request.base_path, setup.device, frozen=adapter is not None),
        args=config,
        train_dataset=Dataset.from_list([row.right.row() for row in setup.train]),
        eval_dataset=Dataset.from_list(held_out) if held_out else None,
        processing_class=setup.tokenizer,
        peft_config=adapter,
        callbacks=list(setup.callbacks),
    )
