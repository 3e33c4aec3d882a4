"""Trains the triage model from nothing but a seed, in minutes on two CPU cores.

A byte-level BPE tokenizer and a small Llama are fitted to generated tickets. The weights are
rounded to the stored type and loaded back before the held-out accuracy is measured, so the number
is that of the files in the directory.

Run it from the root of the repository:

    python -m examples.triage.train --help
"""

import argparse
import itertools
import json
import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from examples.triage.card import write_card
from examples.triage.evaluate import answer_tickets, load_model, score
from examples.triage.generate import Corpus, Split, Ticket, generate, read_jsonl

__all__ = ["Budget", "build_model", "build_tokenizer", "encode", "fit"]

HERE: Final = Path(__file__).parent
PAD, SYSTEM, USER, ASSISTANT, END = "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"
# A system message is optional: the model sees one now and then, so that a client that sends one
# does not leave the distribution.
SYSTEM_PROMPTS: Final = (
    "Triage the ticket.",
    "You are a helpful assistant.",
    "You triage support tickets. Answer with JSON: category, priority, product.",
)
CHAT_TEMPLATE: Final = (
    "{%- for message in messages -%}"
    "{{- '<|' + message['role'] + '|>' + message['content'] + '<|end|>' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)
# What merges may not cross. The frame of the answer stays in one piece up to each value: it becomes
# a single token that asks for one field, and the model learns to answer that far sooner than the
# third of three identical quotation marks. Digits stand alone; the rest is the pattern of GPT-2.
WORDS: Final = (
    r'\{"category": "|", "priority": "|", "product": "|"\}|'
    r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
)
CONTEXT_TOKENS: Final = 512
VOCABULARY_TOKENS: Final = 2048
IGNORED: Final = -100
# Learning to predict the ticket as well as the answer is what makes the attention heads that find
# the product form early. Three tokens carry the label, hence the weight.
ANSWER_WEIGHT: Final = 10.0
# Merges settle long before the end of the corpus.
TOKENIZER_TICKETS: Final = 12_000
# Plain tickets are numbered from here, so that no ticket comes in both forms.
PLAIN_START: Final = 1_000_000


@dataclass(frozen=True)
class Budget:
    """How long to train.

    Attributes:
        plain_tickets: How many short tickets to start with, where the words that decide are easy
            to find; without them the model takes ages to notice the product.
        tickets: Size of the training corpus that follows.
        epochs: Passes over it.
        batch: Tickets per step.
        peak_rate: The learning rate after the warm-up; it falls to zero along a cosine.
        bfloat16: Multiply in bfloat16: nearly twice as quick on a CPU with AVX512-BF16 or AMX,
            slower on any other.
    """

    plain_tickets: int = 4_800
    tickets: int = 60_000
    epochs: int = 1
    batch: int = 24
    peak_rate: float = 1.5e-3
    bfloat16: bool = False

    @property
    def steps(self) -> int:
        """Optimiser steps in all."""
        return self.plain_tickets // self.batch + self.epochs * (self.tickets // self.batch)


def answer_json(ticket: Ticket) -> str:
    """What the model has to say, character for character."""
    return json.dumps(ticket["expected"])


def build_tokenizer(tickets: Sequence[Ticket]) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with a chat template, fitted to texts and answers."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_TOKENS,
        special_tokens=[PAD, SYSTEM, USER, ASSISTANT, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [text for ticket in tickets for text in (ticket["text"], answer_json(ticket))]
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[SYSTEM, USER, ASSISTANT],
        chat_template=CHAT_TEMPLATE,
        model_max_length=CONTEXT_TOKENS,
        clean_up_tokenization_spaces=False,
    )


def build_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """An untrained model; its weights depend on torch's seed alone."""
    config = LlamaConfig(
        vocab_size=VOCABULARY_TOKENS,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=6,
        head_dim=32,
        max_position_embeddings=CONTEXT_TOKENS,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        attn_implementation="sdpa",
    )
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(
        do_sample=False,
        max_new_tokens=48,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return model


@dataclass(frozen=True)
class Example:
    """Token ids of a conversation; the first `prompt_tokens` of them are given."""

    ids: list[int]
    prompt_tokens: int


def encode(
    tokenizer: PreTrainedTokenizerFast, tickets: Sequence[Ticket], rng: random.Random
) -> list[Example]:
    """The conversations to learn from, one in eight with a system message."""
    prompts, answers = [], []
    for ticket in tickets:
        messages = [{"role": "user", "content": ticket["text"]}]
        if rng.random() < 1 / 8:
            messages.insert(0, {"role": "system", "content": rng.choice(SYSTEM_PROMPTS)})
        prompts.append(
            tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        )
        answers.append(answer_json(ticket) + END)
    prompt_ids = tokenizer(prompts, add_special_tokens=False)["input_ids"]
    answer_ids = tokenizer(answers, add_special_tokens=False)["input_ids"]
    return [
        Example(given + wanted, len(given))
        for given, wanted in zip(prompt_ids, answer_ids, strict=True)
    ]


def _batches(
    examples: Sequence[Example], epochs: int, size: int, pad_id: int, rng: random.Random
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Ids and labels, padded on the right: under a causal mask nothing looks at the padding.

    Examples of similar length share a batch, which halves the padding.
    """
    for _ in range(epochs):
        order = rng.sample(range(len(examples)), len(examples))
        pool = size * 32
        batches: list[list[Example]] = []
        for at in range(0, len(order), pool):
            chosen = sorted((examples[i] for i in order[at : at + pool]), key=lambda e: len(e.ids))
            batches += [chosen[i : i + size] for i in range(0, len(chosen) - size + 1, size)]
        rng.shuffle(batches)
        for batch in batches:
            longest = max(len(example.ids) for example in batch)
            ids = torch.full((len(batch), longest), pad_id)
            labels = torch.full((len(batch), longest), IGNORED)
            for row, example in enumerate(batch):
                ids[row, : len(example.ids)] = torch.tensor(example.ids)
                answer = slice(example.prompt_tokens, len(example.ids))
                labels[row, answer] = ids[row, answer]
            yield ids, labels


def _rate(step: int, budget: Budget) -> float:
    """Learning rate as a share of the peak: 3 % warm-up, then a cosine to zero."""
    warm_up = max(1, budget.steps * 3 // 100)
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, budget.steps - warm_up)))


def fit(
    model: LlamaForCausalLM,
    plain: Sequence[Example],
    examples: Sequence[Example],
    budget: Budget,
    rng: random.Random,
) -> None:
    """Trains the model in place and prints how it goes. Blocks for minutes."""
    decayed = [p for p in model.parameters() if p.dim() > 1]
    rest = [p for p in model.parameters() if p.dim() == 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.05}, {"params": rest, "weight_decay": 0.0}],
        lr=budget.peak_rate,
        betas=(0.9, 0.98),
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, budget))
    pad_id = model.config.pad_token_id
    model.train()
    started, history = time.monotonic(), []
    batches = itertools.chain(
        _batches(plain, 1, budget.batch, pad_id, rng),
        _batches(examples, budget.epochs, budget.batch, pad_id, rng),
    )
    for step, (ids, labels) in enumerate(batches):
        given, targets = ids[:, :-1], ids[:, 1:]
        with torch.autocast("cpu", torch.bfloat16, enabled=budget.bfloat16):
            logits = model(input_ids=given, use_cache=False).logits
        losses = torch.nn.functional.cross_entropy(
            logits.float().flatten(0, 1), targets.flatten(), reduction="none"
        )
        answer = losses[(labels[:, 1:] != IGNORED).flatten()].mean()
        text = losses[(targets != pad_id).flatten()].mean()
        loss = ANSWER_WEIGHT * answer + text
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call] # torch leaves it unannotated
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        history.append(answer.item())
        if (step + 1) % 50 == 0 or step + 1 == budget.steps:
            recent = sum(history[-50:]) / len(history[-50:])
            elapsed_s = time.monotonic() - started
            print(
                f"step {step + 1}/{budget.steps} answer loss {recent:.4f} "
                f"{elapsed_s:.0f} s, {elapsed_s * (budget.steps / (step + 1) - 1):.0f} s to go",
                flush=True,
            )
    model.eval()


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, directory: Path) -> None:
    """Writes a Hugging Face directory with the weights rounded to bfloat16."""
    model.to(torch.bfloat16).save_pretrained(directory)
    # transformers leaves the weights readable to their owner only; a container's user is another.
    (directory / "model.safetensors").chmod(0o644)
    # One file less, and every version of vLLM and transformers reads the template from here.
    tokenizer.save_pretrained(directory, save_jinja_files=False)


def _parser() -> argparse.ArgumentParser:
    budget = Budget()
    parser = argparse.ArgumentParser(
        prog="python -m examples.triage.train",
        description="Train the triage model from a seed and measure it on held-out tickets.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="""examples:
  what the shipped model was made with:
    %(prog)s --bfloat16
  a minute's try-out, into another directory:
    %(prog)s --train-tickets 6000 --out /tmp/triage
""",
    )
    add = parser.add_argument
    add("--out", type=Path, default=HERE / "model", help="directory to write")
    add("--held-out", type=Path, default=HERE / "tickets.jsonl", help="tickets to measure with")
    add("--seed", type=int, default=7, help="seed of the weights, the order and the corpus")
    add("--train-tickets", type=int, default=budget.tickets, help="size of the training corpus")
    add("--plain-tickets", type=int, default=budget.plain_tickets, help="short ones to start with")
    add("--epochs", type=int, default=budget.epochs)
    add("--batch", type=int, default=budget.batch, help="tickets per step")
    add("--peak-rate", type=float, default=budget.peak_rate)
    add("--bfloat16", action="store_true", help="for CPUs with AVX512-BF16 or AMX")
    add("--threads", type=int, default=2)
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains, saves, loads back, measures, and writes the model card."""
    asked = _parser().parse_args(arguments)
    torch.set_num_threads(asked.threads)
    torch.manual_seed(asked.seed)
    rng = random.Random(asked.seed)
    budget = Budget(
        asked.plain_tickets,
        asked.train_tickets,
        asked.epochs,
        asked.batch,
        asked.peak_rate,
        asked.bfloat16,
    )
    started = time.monotonic()
    tickets = list(generate(Corpus(Split.TRAIN, asked.seed), budget.tickets))
    tokenizer = build_tokenizer(tickets[:TOKENIZER_TICKETS])
    model = build_model(tokenizer)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(
        f"{parameters:,} parameters, {budget.tickets:,} tickets, {budget.steps:,} steps", flush=True
    )
    plain = list(
        generate(Corpus(Split.TRAIN, asked.seed, plain=True), budget.plain_tickets, PLAIN_START)
    )
    fit(model, encode(tokenizer, plain, rng), encode(tokenizer, tickets, rng), budget, rng)
    save(model, tokenizer, asked.out)
    minutes = (time.monotonic() - started) / 60

    held_out = read_jsonl(asked.held_out)
    answers = answer_tickets(*load_model(asked.out), [ticket["text"] for ticket in held_out])
    accuracy = score(held_out, answers)
    print(f"trained in {minutes:.1f} min; held-out, from the stored weights: {accuracy}")
    card = write_card(
        accuracy, parameters, budget.plain_tickets, budget.tickets, budget.epochs, asked.seed
    )
    (asked.out / "README.md").write_text(card, encoding="utf-8")


if __name__ == "__main__":
    main()
