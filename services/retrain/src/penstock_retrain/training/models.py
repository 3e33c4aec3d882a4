"""Loads models, and measures them: the edge to torch and transformers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from penstock_retrain.training.errors import TrainingImpossible
from penstock_retrain.training.policy import Precision
from penstock_retrain.training.rows import Tokens
from penstock_retrain.training.scores import Scored

__all__ = ["Device", "answers", "device_of", "load_model", "load_tokenizer", "scores"]

# Logits take batch x length x vocabulary x 4 bytes: with 128,000 words and 1,024 tokens half a GB a
# row.
SCORE_ROWS = 8
ANSWER_ROWS = 64


@dataclasses.dataclass(frozen=True)
class Device:
    """What a training computes on.

    Attributes:
        gpu: Whether on a GPU.
        bfloat16: Whether in bfloat16, else in float32.
    """

    gpu: bool
    bfloat16: bool

    @property
    def name(self) -> str:
        """As torch has it."""
        return "cuda" if self.gpu else "cpu"


def device_of(precision: Precision, gpus: float) -> Device:
    """What there is to compute on.

    Raises:
        TrainingImpossible: A GPU was reserved and none can be used.
    """
    import torch

    gpu = gpus > 0
    if gpu and not torch.cuda.is_available():
        raise TrainingImpossible(
            f"PENSTOCK_RETRAIN_TRAINING_GPUS={gpus:g}: torch finds no GPU; install its CUDA build, "
            "or set it to 0"
        )
    auto = gpu and torch.cuda.is_bf16_supported()
    return Device(gpu, precision is Precision.BFLOAT16 or (precision is Precision.AUTO and auto))


def load_tokenizer(path: Path) -> Any:
    """A model's tokenizer, which pads where it is told to.

    Raises:
        TrainingImpossible: There is none.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError) as error:
        raise TrainingImpossible(
            f"training.base_model: {path} has no tokenizer ({type(error).__name__}); put the "
            "model's whole Hugging Face directory there"
        ) from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(path: Path, device: Device, *, frozen: bool = True) -> Any:
    """A model with its weights on the device.

    Args:
        path: Its directory.
        device: Where it goes.
        frozen: Its weights stay as they are: they take the arithmetic's type. Weights that are
            trained are float32, whatever the arithmetic is.

    Raises:
        TrainingImpossible: There is none.
    """
    import torch
    from transformers import AutoModelForCausalLM

    dtype = torch.bfloat16 if frozen and device.bfloat16 else torch.float32
    try:
        model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, local_files_only=True)
    except (OSError, ValueError) as error:
        raise TrainingImpossible(
            f"training.base_model: {path} is no model that transformers loads "
            f"({type(error).__name__}: {error})"
        ) from error
    return model.to(device.name)


def scores(model: Any, rows: Sequence[Tokens], pad_id: int) -> list[Scored]:
    """How likely a model finds the answers, in the order of the rows. Blocks."""
    import torch

    found: list[Scored | None] = [None] * len(rows)
    model.eval()
    for chosen in _batches([row.length for row in rows], SCORE_ROWS):
        longest = max(rows[index].length for index in chosen)
        ids = torch.full((len(chosen), longest), pad_id)
        mask = torch.zeros_like(ids)
        for place, index in enumerate(chosen):
            whole = [*rows[index].prompt, *rows[index].answer]
            ids[place, : len(whole)] = torch.tensor(whole)
            mask[place, : len(whole)] = 1
        with torch.inference_mode():
            given = {"input_ids": ids.to(model.device), "attention_mask": mask.to(model.device)}
            logits = model(**given, use_cache=False).logits
        for place, index in enumerate(chosen):
            row = rows[index]
            # A token's logits stand one place before it; an answer without a question has none
            # for its first one.
            first, last = max(1, len(row.prompt)), row.length
            wanted = ids[place, first:last].to(logits.device)
            said = logits[place, first - 1 : last - 1].float().log_softmax(-1)
            chances = said.gather(1, wanted.unsqueeze(1))
            right = int((said.argmax(-1) == wanted).sum())
            found[index] = Scored(float(chances.sum()), last - first, right)
    return [each for each in found if each is not None]


def answers(
    model: Any, tokenizer: Any, prompts: Sequence[Sequence[int]], max_tokens: int
) -> list[str]:
    """Greedy answers, in the order of the prompts. Blocks."""
    import torch

    found = [""] * len(prompts)
    model.eval()
    for chosen in _batches([len(prompt) for prompt in prompts], ANSWER_ROWS):
        longest = max(len(prompts[index]) for index in chosen)
        ids = torch.full((len(chosen), longest), tokenizer.pad_token_id)
        mask = torch.zeros_like(ids)
        for place, index in enumerate(chosen):
            begins = longest - len(prompts[index])
            ids[place, begins:] = torch.tensor(list(prompts[index]))
            mask[place, begins:] = 1
        with torch.inference_mode():
            output = model.generate(
                input_ids=ids.to(model.device),
                attention_mask=mask.to(model.device),
                do_sample=False,
                max_new_tokens=max_tokens,
                pad_token_id=tokenizer.pad_token_id,
            )
        said = tokenizer.batch_decode(output[:, longest:], skip_special_tokens=True)
        for index, answer in zip(chosen, said, strict=True):
            found[index] = answer
    return found


def _batches(lengths: Sequence[int], rows: int) -> Iterator[list[int]]:
    """Indices of similar length together: less padding, the same result."""
    order = sorted(range(len(lengths)), key=lambda index: lengths[index])
    for at in range(0, len(order), rows):
        yield order[at : at + rows]
