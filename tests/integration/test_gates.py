"""Gates with real models: the triage model against itself, broken, and killed on the way."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from penstock_retrain.gates.answer_log import AnswerLog
from penstock_retrain.gates.answering import ModelProcess, answer_all
from penstock_retrain.gates.contenders import contender_of
from penstock_retrain.gates.errors import AnswersError
from penstock_retrain.gates.examples import batches_of
from penstock_retrain.gates.judging import Verdict
from penstock_retrain.gates.loading import load_suite
from penstock_retrain.gates.running import ANSWERS, PAGE, REPORT, Contest, run_gates

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "examples" / "triage" / "model"
TICKETS = ROOT / "examples" / "triage" / "tickets.jsonl"
SUITE = """
suite: small
examples: {{file: {tickets}, fields: {{id: ticket_id, text: text, expected: expected}}, count: 48}}
answers: {{max_tokens: 48, batch: 8}}
variants: [{{name: typos, kind: typos, rate: 0.02, seed: 7, count: 32}}]
rules:
  - {{metric: exact_match, at_least: 0.8}}
  - {{metric: exact_match, no_worse_by: 0.1}}
  - {{metric: exact_match, slice: typos, no_worse_by: 0.15}}
  - {{metric: json_valid, at_least: 0.9}}
  - {{metric: no_personal_data, at_least: 0.9}}
"""


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SUITE.format(tickets=TICKETS))
    return path


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """The triage model with the rows of two tokens exchanged: it says one priority for another."""
    from safetensors.torch import load_file, save_file
    from transformers import AutoTokenizer

    path = tmp_path / "broken"
    shutil.copytree(MODEL, path)
    tokenizer = AutoTokenizer.from_pretrained(path)
    one, other = (tokenizer(word)["input_ids"][0] for word in ("urgent", "normal"))
    weights = load_file(path / "model.safetensors")
    name = "model.embed_tokens.weight"
    weights[name][[one, other]] = weights[name][[other, one]]
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    return path


async def test_a_champion_passes_against_itself_and_a_broken_candidate_does_not(
    suite: Path, broken: Path, tmp_path: Path
) -> None:
    champion = contender_of("champion", MODEL)
    loaded = [load_suite(suite)]
    same = await run_gates(
        Contest(loaded, contender_of("same", MODEL), champion, 0.05), ModelProcess(2), tmp_path
    )
    assert same.passed, same.reason
    made = await run_gates(
        Contest(loaded, contender_of("broken", broken), champion, 0.05), ModelProcess(2), tmp_path
    )
    verdicts = {(row.metric, row.slice): row.verdict for row in made.rows}
    assert verdicts[("exact_match", "all")] is Verdict.FAIL
    assert verdicts[("exact_match_vs_champion", "all")] is Verdict.FAIL
    assert verdicts[("no_personal_data", "all")] is Verdict.PASS
    report = json.loads((tmp_path / REPORT).read_text())
    (row,) = [r for r in report["rows"] if (r["metric"], r["slice"]) == ("exact_match", "all")]
    tickets = {t["ticket_id"]: t for t in map(json.loads, TICKETS.read_text().splitlines())}
    for worst in row["worst"]:
        assert worst["expected"] == tickets[worst["id"]]["expected"]
        assert worst["answered"] != json.dumps(worst["expected"])
    assert "no worse than the champion" in (tmp_path / PAGE).read_text()


def test_killed_on_the_way_it_goes_on_and_leaves_no_process(suite: Path, tmp_path: Path) -> None:
    def command(out: Path) -> list[str]:
        run = ["run", "--suite", str(suite), "--model", str(MODEL), "--champion", str(MODEL)]
        return [
            *(sys.executable, "-c", "from penstock_retrain.cli.gates import app; app()"),
            *(*run, "--out", str(out), "--threads", "2"),
        ]

    out = tmp_path / "out"
    process = subprocess.Popen(command(out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    children: list[int] = []
    deadline = time.monotonic() + 60
    while _lines(out) < 3 and time.monotonic() < deadline:
        children = children or _children(process.pid)
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = _lines(out)
    # Ten batches of 8 in all.
    assert 3 <= kept < 10
    assert not (out / REPORT).exists()
    before = (out / ANSWERS).read_bytes()
    assert len(children) == 1
    while _alive(children[0]) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _alive(children[0])

    done = subprocess.run(command(out), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert _lines(out) == 10
    assert (out / ANSWERS).read_bytes().startswith(before.rpartition(b"}")[0])
    whole = subprocess.run(
        command(tmp_path / "whole"), capture_output=True, text=True, timeout=120, check=False
    )
    assert whole.returncode == 0, whole.stdout + whole.stderr
    rows = [json.loads((path / REPORT).read_text())["rows"] for path in (out, tmp_path / "whole")]
    assert rows[0] == rows[1]


def adapters(folder: Path) -> tuple[Path, Path]:
    """Two of PEFT's adapters: one that changes nothing, and one that changes all."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    for name, fresh in (("idle", True), ("wild", False)):
        base = AutoModelForCausalLM.from_pretrained(MODEL)
        config = LoraConfig(r=8, lora_alpha=64, target_modules=["q_proj", "v_proj", "up_proj"])
        config.init_lora_weights = fresh
        get_peft_model(base, config).save_pretrained(str(folder / name))
    return folder / "idle", folder / "wild"


async def test_adapters_of_one_base_answer_in_turns_each_with_its_own_weights(
    suite: Path, tmp_path: Path
) -> None:
    idle, wild = adapters(tmp_path)
    contenders = [
        contender_of("base", MODEL),
        contender_of("idle", MODEL, idle),
        contender_of("wild", MODEL, wild),
    ]
    questions = load_suite(suite).questions()[:12]
    batches = batches_of(contenders, questions, 4)
    answers = await answer_all(batches, ModelProcess(2), AnswerLog(tmp_path / ANSWERS))
    said = [
        [answers[(each.digest, question.digest)].text for question in questions]
        for each in contenders
    ]
    assert said[0] == said[1]
    assert said[0] != said[2]
    assert all(text.startswith('{"category"') for text in said[0])
    asked = answers[(contenders[0].digest, questions[0].digest)]
    assert (asked.batch, asked.prompt_tokens > 20, 3 < asked.completion_tokens < 30) == (
        4,
        True,
        True,
    )


async def test_what_cannot_be_loaded_is_said(suite: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    shutil.copytree(MODEL, bad)
    (bad / "model.safetensors").write_bytes(b"nothing")
    contest = Contest([load_suite(suite)], contender_of("bad", bad), None, 0.05)
    with pytest.raises(AnswersError, match=r"ended with code 1: (.|\n)*Error"):
        await asyncio.wait_for(run_gates(contest, ModelProcess(2), tmp_path / "out"), 60)


def _lines(out: Path) -> int:
    path = out / ANSWERS
    return path.read_bytes().count(b'{"batch"') if path.exists() else 0


def _children(pid: int) -> list[int]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(each) for each in text.split()]


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
