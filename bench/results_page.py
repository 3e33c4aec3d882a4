"""RESULTS.md from the figures: what was to be reached, what was measured, on what."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from report import table
from stats import interval_of_mean, interval_of_ratio

__all__ = ["page"]

NAMES = {
    "A": "`vllm bench throughput` (offline, temperature 1)",
    "B": "AsyncLLM in a process",
    "B'": "the same, with log-probabilities as penstock asks for them",
    'B"': "B' with vLLM's processes and threads as penstock's engine has them",
    "C": "AsyncLLM in Ray Serve, through a handle",
    "D": "penstock, Kafka to Kafka, exactly once",
    "E": "`vllm serve` under `vllm bench serve`",
    "F": "`ray.serve.llm` under `vllm bench serve`",
}
RATIOS = {
    "D/B": 0.88,
    "D/E": 1.25,
    **dict.fromkeys(("D/F", "D/A", "D/B'", 'D/B"', "D/C", "B/A", "C/B"), None),
}
LEGS = {"admitted": "pump", "requests": "ingest and pump"}
TARGET_RATES = {"admitted": 6000, "requests": 2500}
TARGET_MS = {
    ("admitted", "100/s"): (10, 30),
    ("admitted", "1000/s"): (35, 80),
    ("requests", "100/s"): (25, 60),
}
TARGET_TTFT_MS = (8, 25)
THROUGHPUT_PARTS = {"core": "vLLM's core", "engine": "the replica around it", "rest": "Ray"}
CPU_PARTS = ("broker", "ingest", "pump", "engine", "rest")


def page(parts: Mapping[str, Any], *, quick: bool) -> str:
    """The whole page, of the parts that there are."""
    writers = (
        ("throughput", _throughput),
        ("scripted", _scripted),
        ("latency", _latency),
        ("ttft", _ttft),
        ("growth", _growth),
    )
    sections = [_section(parts[name], write) for name, write in writers if parts.get(name)]
    title = "# Benchmark, quick form: no figures to quote\n" if quick else "# Benchmark\n"
    return "\n".join(
        [
            title,
            "Written by `make bench`; how it is measured and how to read it: "
            "[docs/benchmarks.md](../docs/benchmarks.md). Figures, rounds and seeds: "
            "`results/bench.json`.\n",
            *sections,
        ]
    )


def _section(part: Mapping[str, Any], write: Any) -> str:
    on = part["circumstances"]
    machine = on["machine"]
    loads = ", ".join(f"{load:.1f}" for load in on["load_average"])
    packages = ", ".join(f"{name} {version}" for name, version in on["versions"].items())
    done = part.get("complete") or "visits" in part
    unfinished = "" if done else " **Not complete yet.**"
    return (
        f"{write(part)}\n{machine['cpu']}, {machine['cores']} cores "
        f"({', '.join(machine['vector'])}), {machine['memory_gib']} GiB; load average at the "
        f"start {loads}; {on['at']}, commit {on['commit']}; Python {machine['python']}, "
        f"{packages}.{unfinished}\n"
    )


def _throughput(part: Mapping[str, Any]) -> str:
    rates = _rates(part)
    rows = []
    for name, label in NAMES.items():
        if name in rates:
            low, middle, high = interval_of_mean(list(rates[name].values()))
            interval = f"{low:,.0f} to {high:,.0f}" if len(rates[name]) > 1 else ""
            count = str(len(rates[name]))
            rows.append((f"({name}) {label}", f"{middle:,.0f}", interval, count))
        elif name in part.get("failures", {}):
            rows.append((f"({name}) {label}", "did not run", "see below", "0"))
    ratios = []
    for name, target in RATIOS.items():
        above, _, below = name.partition("/")
        both = sorted(rates.get(above, {}).keys() & rates.get(below, {}).keys())
        if both:
            low, middle, high = interval_of_ratio(
                [rates[above][n] for n in both], [rates[below][n] for n in both]
            )
            goal = _goal(middle >= target, f"at least {target}") if target else ""
            interval = f"{low:.2f} to {high:.2f}" if len(both) > 1 else ""
            ratios.append((name, f"{middle:.2f}", interval, goal))
    failures = _cpu_of_penstock(part) + "".join(
        f"\n({name}) ended with:\n\n```\n{_last_lines(text)}\n```\n"
        for name, text in part.get("failures", {}).items()
        if name not in rates
    )
    return f"""## Tokens per second

examples/triage/model, {part["requests"]} tickets a round as chats of one turn,
{part["max_tokens"]} tokens each, 128 sequences at a time in the engine, prefix cache on, warmed;
in rounds, in each of which everybody in turn is started, warmed, measured twice and stopped.
Mean of the rounds and its 95 % interval (bootstrap over rounds).

{table(("path", "output tokens/s", "95 %", "rounds"), rows)}

{table(("ratio", "of the means", "95 %", "to reach"), ratios)}
{failures}"""


def _cpu_of_penstock(part: Mapping[str, Any]) -> str:
    """What (D) spends where, so that it shows what is left for the engine."""
    rounds = [run for visit in part.get("visits", []) for run in visit["runs"] if "cpu_ms" in run]
    if not rounds:
        return ""
    spent = _medians(rounds, "cpu_ms")
    seconds = statistics.median(1000 * run["seconds"] / part["requests"] for run in rounds)
    shares = ", ".join(f"{THROUGHPUT_PARTS.get(p, p)} {ms:.2f}" for p, ms in sorted(spent.items()))
    return (
        f"\nCPU time of (D) per request, in ms: {shares}; a request takes {seconds:.2f} ms of the "
        "machine's time.\n"
    )


def _rates(part: Mapping[str, Any]) -> dict[str, dict[int, float]]:
    """Tokens per second of each contender in each round."""
    rates: dict[str, dict[int, float]] = {}
    for visit in part.get("visits", []):
        runs = [run["tokens_per_s"] for run in visit["runs"]]
        rates.setdefault(visit["contender"], {})[visit["round"]] = statistics.mean(runs)
    return rates


def _scripted(part: Mapping[str, Any]) -> str:
    rows = []
    for name, rounds in part.items():
        if not isinstance(rounds, list) or not rounds:
            continue
        rate = [each["requests_per_s"] for each in rounds]
        target = TARGET_RATES.get(name)
        middle = statistics.median(rate)
        label = LEGS.get(name, "ingest and pump, requests as JSON")
        cpu = _medians(rounds, "cpu_ms_per_request")
        total = sum(cpu.values())
        rows.append(
            (
                label,
                f"{middle:,.0f} ({min(rate):,.0f} to {max(rate):,.0f})",
                _goal(middle >= target, f"at least {target:,}") if target else "",
                f"{1000 / total:,.0f}",
                f"{total:.3f}",
                *(f"{cpu[p]:.3f}" if p in cpu else "" for p in CPU_PARTS),
                f"{statistics.median(each['cpu_others_share'] for each in rounds):.0%}",
            )
        )
    first = next(rounds for rounds in part.values() if isinstance(rounds, list) and rounds)
    header = ("leg", "requests/s", "to reach", "per core", "CPU ms", *CPU_PARTS, "others")
    return f"""## Requests per second around a scripted engine

The engine answers after 50 ms, 512 at a time. A backlog of {first[0]["requests"]:,} requests
becomes visible at once; the clock runs until the last response is committed. Median (least to
most) of {len(first)} rounds; CPU time per request in ms, by process (rest: Ray, supervisord);
per core: requests that a second of CPU time pays for; others: the share of the cores' time that
went to processes that are none of the stack's, the client that asks whether it is done among them.

{table(header, rows)}
"""


def _latency(part: Mapping[str, Any]) -> str:
    rows = []
    for leg in LEGS:
        for name, runs in part.get(leg, {}).get("runs", {}).items():
            p50 = [each["added_p50_ms"] for each in runs]
            p99 = [each["added_p99_ms"] for each in runs]
            target = TARGET_MS.get((leg, name))
            reached = target and (
                statistics.median(p50) <= target[0] and statistics.median(p99) <= target[1]
            )
            rows.append(
                (
                    LEGS[leg],
                    f"{name} ({runs[0]['rate']:,.0f}/s)" if "capacity" in name else name,
                    f"{statistics.median(p50):.1f}",
                    f"{statistics.median(p99):.1f}",
                    _goal(bool(reached), f"{target[0]} and {target[1]}") if target else "",
                    f"{max(each['client_cpu_share'] for each in runs):.0%}",
                )
            )
    header = ("leg", "load", "added p50, ms", "added p99, ms", "to reach", "client, of a core")
    return f"""## Added latency

Open loop; from the instant at which a request should have been sent to its committed response in
the client's hands, less the engine's 50 ms. Medians of the runs.

{table(header, rows)}
"""


def _ttft(part: Mapping[str, Any]) -> str:
    rows = []
    for rate, runs in part.items():
        if not isinstance(runs, list):
            continue
        p50 = statistics.median(each["first"]["added_p50_ms"] for each in runs)
        p99 = statistics.median(each["first"]["added_p99_ms"] for each in runs)
        end50 = statistics.median(each["last"]["added_p50_ms"] for each in runs)
        reached = p50 <= TARGET_TTFT_MS[0] and p99 <= TARGET_TTFT_MS[1]
        goal = _goal(reached, f"{TARGET_TTFT_MS[0]} and {TARGET_TTFT_MS[1]}")
        rows.append((f"{rate}/s", f"{p50:.1f}", f"{p99:.1f}", goal, f"{end50:.1f}"))
    header = ("streams", "first token p50", "first token p99", "to reach", "last event p50")
    return f"""## Time to the first token, gRPC door

Added milliseconds: beyond the engine's 50 to the first token and 5 to each further one, from
intended call times. The last event is the committed response.

{table(header, rows)}
"""


def _growth(part: Mapping[str, Any]) -> str:
    rows = []
    for row in part.get("rows", []):
        bound = f"{row['bound_per_s']:,.0f}" if row["bound_per_s"] else ""
        memory = row["kib_per_request"]
        rows.append(
            (
                f"{row['axis']} {row['value']:,}",
                f"{row['requests_per_s']:,.0f}",
                bound,
                f"{row['cpu_ms_per_request_total']:.3f}",
                *(f"{memory[p]:.2f}" for p in ("pump", "ingest", "engine")),
                *(f"{row['rss_mib_peak'][p]:,.0f}" for p in ("pump", "ingest")),
            )
        )
    header = (
        "what varies",
        "requests/s",
        "key order allows",
        "CPU ms",
        "pump KiB each",
        "ingest KiB each",
        "engine KiB each",
        "pump MiB",
        "ingest MiB",
    )
    return f"""## Growth

From the public topic through ingest and pump; 10,000 requests, 4 partitions, no ordering keys and
one tenant unless said otherwise. Memory is what the process grew by, per request; requests that
share a key run one after another, 50 ms each.

{table(header, rows)}
"""


def _medians(rounds: Sequence[Mapping[str, Any]], name: str) -> dict[str, float]:
    parts = {part for each in rounds for part in each[name]}
    return {part: statistics.median(each[name].get(part, 0.0) for each in rounds) for part in parts}


def _goal(reached: bool, goal: str) -> str:
    return f"{goal}: {'yes' if reached else '**no**'}"


def _last_lines(text: str) -> str:
    return "\n".join(line[:200] for line in text.strip().splitlines()[-12:])
