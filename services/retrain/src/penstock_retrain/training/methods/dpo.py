"""DPO: an adapter from pairs of a better and a worse answer (Rafailov et al. 2023), by TRL.

The reference is the base model: the same weights with the adapter switched off.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from penstock_retrain.dataset.examples import Example
from penstock_retrain.training.adapters import adapted, export_adapter, lora_config
from penstock_retrain.training.method import Setup
from penstock_retrain.training.models import load_model, scores
from penstock_retrain.training.request import Kind
from penstock_retrain.training.rows import Pair, Tokenizer, pairs_of
from penstock_retrain.training.scores import of_answers, of_pairs
from penstock_retrain.training.supervised import measured_answers

__all__ = ["Dpo"]


class Dpo:
    """See `penstock_retrain.training.method.Method`."""

    kind = Kind.ADAPTER
    needs = "a better and a worse answer"

    def rows(
        self, examples: Sequence[Example], tokenizer: Tokenizer, max_tokens: int
    ) -> tuple[list[Pair], Counter[str]]:
        """See `Method`."""
        return pairs_of(examples, tokenizer, max_tokens)

    def trainer(self, setup: Setup) -> Any:
        """See `Method`."""
        from datasets import Dataset
        from trl import DPOConfig, DPOTrainer

        dpo = setup.policy.dpo
        losses, weights = ["sigmoid"], [1.0]
        if dpo.sft_weight:
            losses, weights = [*losses, "sft"], [*weights, dpo.sft_weight]
        # Rows that are too long were left out before.
        config = DPOConfig(
            **setup.arguments(),
            beta=dpo.beta,
            loss_type=losses,
            loss_weights=weights,
            max_length=None,
        )
        held_out = [dict(pair.row) for pair in setup.held_out]
        return DPOTrainer(
            model=load_model(setup.request.base_path, setup.device),
            args=config,
            train_dataset=Dataset.from_list([dict(pair.row) for pair in setup.train]),
            eval_dataset=Dataset.from_list(held_out) if held_out else None,
            processing_class=setup.tokenizer,
            peft_config=lora_config(setup),
            callbacks=list(setup.callbacks),
        )

    def export(self, setup: Setup, checkpoint: Path, out: Path) -> None:
        """See `Method`."""
        export_adapter(setup, checkpoint, out)

    def load(self, setup: Setup, exported: Path) -> Any:
        """See `Method`."""
        return adapted(setup, exported)

    def measure(self, setup: Setup, model: Any) -> dict[str, float]:
        """See `Method`: margin between better and worse, and what the better ones are worth."""
        pairs: Sequence[Pair] = setup.held_out
        pad_id = setup.tokenizer.pad_token_id
        better = scores(model, [pair.better for pair in pairs], pad_id)
        worse = scores(model, [pair.worse for pair in pairs], pad_id)
        asked = [(pair.better.prompt, pair.target) for pair in pairs]
        found = of_pairs(better, worse) | of_answers(better)
        return found | measured_answers(setup, model, asked)
