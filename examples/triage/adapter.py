"""Trains a LoRA adapter for the triage model with PEFT, in less than a minute on two CPU cores.

The adapter teaches the model what changed since it was made: the new vocabulary, the changed rule,
or both. It is written as the engines want it: a directory named for the adapter, in PEFT's format,
with a manifest of its files.

Run it from the root of the repository:

    python -m examples.triage.adapter --help
"""

import argparse
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch

from examples.triage.evaluate import MODEL, answer_tickets, load_model, score
from examples.triage.generate import Corpus, Rule, Split, Vocabulary, generate
from examples.triage.train import Budget, encode, fit
from penstock.manifest import write_manifest

__all__ = ["train_adapter"]

# The cosine's peak; higher than for the whole model, since so few weights have to move.
PEAK_RATE: Final = 1e-2
MODULES: Final = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
BATCH: Final = 24


def train_adapter(
    directory: Path,
    corpus: Corpus,
    *,
    tickets: int,
    rank: int = 8,
    seed: int = 7,
    base: Path = MODEL,
) -> Any:
    """Trains an adapter and writes it with its manifest.

    Args:
        directory: Where to write; its name is the adapter's.
        corpus: What to learn from.
        tickets: How many; some hundreds suffice.
        rank: Of the adapter's matrices.
        seed: Of their beginning and of the order.
        base: The model to adapt.

    Returns:
        PEFT's model with the adapter, as it was loaded back from the directory.
    """
    # PEFT takes seconds to import.
    from peft import LoraConfig, PeftModel, get_peft_model

    torch.manual_seed(seed)
    rng = random.Random(seed)
    tokenizer, model = load_model(base)
    adapted = get_peft_model(
        model, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=list(MODULES))
    )
    examples = encode(tokenizer, list(generate(corpus, tickets)), rng)
    budget = Budget(plain_tickets=0, tickets=tickets, batch=BATCH, peak_rate=PEAK_RATE)
    fit(adapted, [], examples, budget, rng)
    adapted.save_pretrained(directory)
    for path in directory.iterdir():
        path.chmod(0o644)  # the engine may run as another user
    write_manifest(directory)
    return PeftModel.from_pretrained(load_model(base)[1], directory).eval()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m examples.triage.adapter",
        description="Train a LoRA adapter for the triage model and measure it.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="""examples:
  for renamed products and new words:
    %(prog)s --vocabulary new --out adapters/triage-new-words-1
  for the changed rule:
    %(prog)s --rule changed --out adapters/triage-new-rule-1
""",
    )
    add = parser.add_argument
    add("--out", type=Path, required=True, help="directory to write; its name is the adapter's")
    add("--model", type=Path, default=MODEL, help="the base model")
    add("--vocabulary", type=Vocabulary, choices=list(Vocabulary), default=Vocabulary.BASE)
    add("--rule", type=Rule, choices=list(Rule), default=Rule.BASE)
    add("--tickets", type=int, default=1200, help="size of the training corpus")
    add("--held-out", type=int, default=300, help="tickets to measure with")
    add("--rank", type=int, default=8)
    add("--seed", type=int, default=7)
    add("--threads", type=int, default=2)
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains, saves, and measures base model and adapter on the same held-out tickets."""
    asked = _parser().parse_args(arguments)
    torch.set_num_threads(asked.threads)
    knobs = {"seed": asked.seed, "vocabulary": asked.vocabulary, "rule": asked.rule}
    started = time.monotonic()
    adapted = train_adapter(
        asked.out,
        Corpus(Split.TRAIN, **knobs),
        tickets=asked.tickets,
        rank=asked.rank,
        seed=asked.seed,
        base=asked.model,
    )
    print(f"{asked.out} written after {time.monotonic() - started:.0f} s")
    held_out = list(generate(Corpus(Split.HELD_OUT, **knobs), asked.held_out))
    texts = [ticket["text"] for ticket in held_out]
    tokenizer, base = load_model(asked.model)
    for name, model in (("base model", base), ("adapter", adapted)):
        print(f"{name}: {score(held_out, answer_tickets(tokenizer, model, texts))}")


if __name__ == "__main__":
    main()
