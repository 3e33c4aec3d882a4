"""The process that answers: `python -m penstock_retrain.gates.generation`, JSON lines in and out.

The first line says which directories to load; every other one is a batch, and has one line of
answers. It ends when its standard input does, whoever has died, and in the middle of a batch too.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

__all__ = ["main"]


class _Loaded(NamedTuple):
    """A model, and the adapter's name in it; empty for none."""

    tokenizer: Any
    model: Any
    adapter: str


def main() -> None:
    """Answers until standard input ends."""
    # Libraries print what they like: answers keep the real standard output to themselves.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    lines = _lines()
    loaded = _load(json.loads(lines.get()))
    warm: set[int] = set()
    while True:
        batch = json.loads(lines.get())
        number = batch["contender"]
        if number not in warm:
            # The first time takes longer, and is no measure of the rest.
            _answer(loaded[number], {**batch, "questions": batch["questions"][:1]})
            warm.add(number)
        out.write(json.dumps(_answer(loaded[number], batch)) + "\n")
        out.flush()


def _lines() -> queue.SimpleQueue[str]:
    """Standard input's lines; its end ends the process."""
    found: queue.SimpleQueue[str] = queue.SimpleQueue()

    def read() -> None:
        for line in sys.stdin:
            found.put(line)
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    return found


def _load(asked: Mapping[str, Any]) -> list[_Loaded]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if asked["threads"]:
        torch.set_num_threads(asked["threads"])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    # On a CPU numbers of 16 bits are slow, and round away what tells answers apart.
    dtype = "auto" if device == "cuda" else torch.float32
    bases: dict[str, Any] = {}
    found = []
    for number, each in enumerate(asked["contenders"]):
        path = each["model"]
        tokenizer = AutoTokenizer.from_pretrained(path, padding_side="left", local_files_only=True)
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        base = bases.get(path)
        if base is None:
            base = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, local_files_only=True)
            base = base.to(device).eval()
        name = f"adapter-{number}" if each["adapter"] else ""
        bases[path] = _adapted(base, each["adapter"], name) if name else base
        found.append(_Loaded(tokenizer, path, name))
    # Adapters were put around their base after others took it: all take what stands now.
    return [each._replace(model=bases[each.model]) for each in found]


def _adapted(base: Any, adapter: str, name: str) -> Any:
    from peft import PeftModel

    if isinstance(base, PeftModel):
        base.load_adapter(adapter, adapter_name=name)
        return base.eval()
    return PeftModel.from_pretrained(base, adapter, adapter_name=name).eval()


def _answer(loaded: _Loaded, batch: Mapping[str, Any]) -> dict[str, Any]:
    import torch

    began = time.perf_counter()
    ids = [_ids(loaded.tokenizer, question) for question in batch["questions"]]
    room = getattr(loaded.model.config, "max_position_embeddings", None) or sys.maxsize
    fits = [len(each) + batch["max_tokens"] <= room for each in ids]
    asked = [each for each, whole in zip(ids, fits, strict=True) if whole]
    with torch.inference_mode():
        said = iter(_generate(loaded, asked, batch["max_tokens"]) if asked else [])
    answers = []
    for prompt, whole in zip(ids, fits, strict=True):
        # What does not fit gets no answer, which is a wrong one: engines refuse it too.
        text, tokens = next(said) if whole else ("", 0)
        answers.append({"text": text, "prompt_tokens": len(prompt), "completion_tokens": tokens})
    return {"answers": answers, "seconds": time.perf_counter() - began}


def _ids(tokenizer: Any, question: Mapping[str, Any]) -> list[int]:
    if question["prompt"]:
        return list(tokenizer(question["prompt"])["input_ids"])
    text = tokenizer.apply_chat_template(
        question["messages"], add_generation_prompt=True, tokenize=False
    )
    # The template has written the special tokens itself.
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _generate(
    loaded: _Loaded, prompts: Sequence[Sequence[int]], max_tokens: int
) -> list[tuple[str, int]]:
    """Texts and their lengths in tokens, greedy."""
    tokenizer, model = loaded.tokenizer, loaded.model
    given = tokenizer.pad({"input_ids": prompts}, padding=True, return_tensors="pt")
    given = {name: value.to(model.device) for name, value in given.items()}
    with _speaking(model, loaded.adapter):
        output = model.generate(
            **given,
            do_sample=False,
            num_beams=1,
            max_new_tokens=max_tokens,
            pad_token_id=tokenizer.pad_token_id,
        )
    new = output[:, given["input_ids"].shape[1] :]
    ends = model.generation_config.eos_token_id
    stop = {
        tokenizer.pad_token_id,
        tokenizer.eos_token_id,
        *(ends if isinstance(ends, list) else [ends]),
    }
    return [
        (text, sum(token not in stop for token in row.tolist()))
        for text, row in zip(
            tokenizer.batch_decode(new, skip_special_tokens=True), new, strict=True
        )
    ]


def _speaking(model: Any, adapter: str) -> Any:
    """The context in which the model speaks with one adapter, or with none."""
    import contextlib

    if adapter:
        model.set_adapter(adapter)
        return contextlib.nullcontext()
    disabled = getattr(model, "disable_adapter", None)
    return contextlib.nullcontext() if disabled is None else disabled()


if __name__ == "__main__":
    try:
        main()
    except BaseException:  # noqa: BLE001 - whatever it was, the one who asked reads it
        traceback.print_exc()
        # Not by leaving: the thread that reads would hold the interpreter up.
        os._exit(1)
