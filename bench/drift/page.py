"""DRIFT.md from the figures: what was to be reached, what was measured, on what. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from report import table

from bench.drift.claims import ALPHA, BASELINE, targets
from bench.drift.comparison import ALL, TARGET
from bench.drift.contestants import BANK, contestants
from bench.drift.levels import LEVELS
from bench.drift.standing import BEHIND, LEAST_ARL, Standing, standings
from bench.drift.telling import arl_of, change_of, per_run, whole

__all__ = ["page"]

ORDER = (
    BANK, "Bernoulli", "Gaussian", "bounded", "multinomial", "vector", "SEED", "STEPD",
    "ADWIN", "ADWIN of spread", "PageHinkley", "KSWIN", "DDM", "EDDM", "FHDDM", "HDDM_A", "HDDM_W",
    "NoDrift", "fixed period",
)  # fmt: skip
HEAD = f"""# Drift: detectors compared

Written by `make bench-drift`; figures, settings and seeds: `results/drift.json`. How the detectors
work: [docs/detectors.md](../docs/detectors.md).

Every stream begins with a baseline of its own (2,000 values; 6,000, three days, of the seasonal
one), from which all contestants learn and in which alarms do not count. So what a baseline leaves
open is in every figure. Thresholds are set, on one half of the quiet streams, to the most lenient
with {TARGET:,} values to a false alarm on average (ARL0); the ARL0 that is shown was measured on
the other half. Delays are of streams with a change 300 to 700 values after the baseline; a median
or 95th percentile that is a miss is shown as a dash.
"""


def page(parts: Mapping[str, Any]) -> str:
    """The whole page, of the parts that there are."""
    writers = {
        "refusals": _refusals, "levels": _levels, "throughput": _throughput, "worker": _worker,
        "season": _season, "fleet": _fleet, "table": _table, "rivals": _rivals, "costs": _costs,
        "annotated": _annotated,
    }  # fmt: skip
    found = [HEAD, targets(parts), _missing(parts, list(writers))]
    for name, write in writers.items():
        part = parts.get(name)
        if part and part["figures"]:
            found.append(f"{write(part['figures'])}\n{_on(part['circumstances'])}\n")
    return "\n".join(found)


def _missing(parts: Mapping[str, Any], names: Sequence[str]) -> str:
    missing = [name for name in names if not (parts.get(name) or {}).get("figures")]
    figures = (parts.get("table") or {}).get("figures", {})
    for name, scenario in ALL.items():
        left = [who for who in contestants(scenario, TARGET) if who not in figures.get(name, {})]
        if left:
            missing.append(f"{name} of {', '.join(left)}" if figures.get(name) else name)
    return f"Not measured yet: {'; '.join(missing)}.\n" if missing else ""


def _on(on: Mapping[str, Any]) -> str:
    machine = on["machine"]
    packages = ", ".join(f"{name} {version}" for name, version in on["versions"].items())
    return (
        f"{machine['cpu']}, {machine['cores']} cores; load average at the start "
        f"{on['load_average'][0]:.0f}; {on['at']}, commit {on.get('commit', 'unknown')}; "
        f"Python {machine['python']}, {packages}."
    )


def _refusals(found: Mapping[str, Any]) -> str:
    change = found["changes"]["0.10"]
    return f"""## Refusals from 2 to 10 %

The bank's channel at evidence of {found["threshold"]:,}, which was chosen beforehand.
{found["streams"]} quiet streams of {found["length"]:,} values: {found["alarms"]} first alarms, one
in {arl_of(found)}. {change["runs"]} runs with a change ({change["early"]} more alarmed before it):
delay {change["median"]} values (median), {change["p95"]} (95th percentile), {change["missed"]}
missed.
"""


def _levels(found: Mapping[str, Any]) -> str:
    rates = found["quiet rates"]
    promised = {level: rates["rates"] * rates["watched"] / int(level) for level in rates["reached"]}
    many = ", ".join(
        f"{count:,} ever had {int(level):,} (the promise allows {promised[level]:,.0f})"
        for level, count in rates["reached"].items()
    )
    rows = []
    for title, row in found.items():
        for level in LEVELS if title != "quiet rates" else ():
            at = row[str(level)]
            delays = "; ".join(
                f"{row['titles'][change]}: {_delay(each)}" for change, each in at["changes"].items()
            )
            rows.append((title, f"{level:,}", arl_of(at), delays))
    header = ("signal", "evidence at least", "values to a false alarm (95 %)", "change: delay")
    return f"""## At the evidence that a policy asks for

The bank's channel again, at evidence as it is. Delay: median, 95th percentile; missed of runs,
where any were.

{table(header, rows)}

Of {rates["rates"]:,} rates of 2 % without a change, watched for {rates["watched"]:,} values each,
{many}.
"""


def _throughput(found: Mapping[str, Any]) -> str:
    return f"""## The bank as a whole

{found["keys"]:,} keys with {found["signals"]} signals each, {found["armed"]:,} of them armed,
{found["responses"]:,} responses. Per second of CPU {found["channels_per_s"]:,} responses through
the channels ({found["us_per_signal"]} microseconds per signal), and {found.get("fold_per_s", 0):,}
through the fold around them, which puts them in order and tells evidence. State as JSON, exemplars
and all: {found["state_bytes_mean"]:,} bytes per key and signal on average,
{found["state_bytes_most"]:,} at most.
"""


def _worker(found: Mapping[str, Any]) -> str:
    first = next(iter(found.values()))
    rows = [
        (name, f"{row['armed']:,}", f"{row['folded']:,}", f"{row['per_s']:,}", f"{row['cpu_ms']}")
        for name, row in found.items()
    ]
    header = ("policy", "armed signals", "folded", "per second", "ms of CPU each")
    return f"""## One worker on a real log

{first["responses"]:,} requests and responses of the triage model on four
partitions, there before the worker starts; from `responses` to evidence, with `signals` and the
state of every key written on the way. Timed from the first that is drawn.

{table(header, rows)}
"""


def _season(found: Mapping[str, Any]) -> str:
    rows = []
    for name, row in found.items():
        every = ""
        if "all_alarms" in row:
            every = f"{1e4 * row['all_alarms'] / row['all_values']:.2f}"
        rows.append(
            (name, f"{row['first_alarms']} of {row['streams']}",
             f"{1e4 * row['first_alarms'] / row['values']:.2f}", every)
        )  # fmt: skip
    header = ("detector", "streams with an alarm", "per 10,000 values, to the first", "all")
    return f"""## A day's season, at defaults

The seasonal stream without a change. The bank subtracts the season (policy `season: day`) and
fires at evidence of 10,000, ADWIN at its delta of 0.002 sees the values as they are.

{table(header, rows)}
"""


def _fleet(found: Mapping[str, Any]) -> str:
    return f"{_null(found)}\n{_drifting(found)}"


def _null(found: Mapping[str, Any]) -> str:
    rows = [row["null"] for row in found.values()]
    first = rows[0]
    tested = first["responses"] - BASELINE
    opened = sum(row["incidents"] for row in rows)
    false = sum(row["false"] for row in rows)
    each = per_run(opened, len(rows))
    return f"""## Many keys, quiet

{first["keys"]} keys with {first["signals"]} signals, {first["responses"]:,} responses each, of
which {BASELINE:,} are the baseline; through the fold and the judge with the default policy;
seeds {", ".join(found)}. Incidents opened: {opened}, {each} per run (95 %);
false findings of single signals: {false}. Promise of alpha {ALPHA:g} over {tested:,} tested values:
an expected share of false findings, which without a change is the chance of any, of at most
{ALPHA * tested:.1f}.
"""


def _drifting(found: Mapping[str, Any]) -> str:
    rows = [row["drifting"] for row in found.values()]
    delays = sorted(delay for row in rows for delay in row["delays"])
    middle = delays[len(delays) // 2] if delays else "none"
    late = delays[min(len(delays) - 1, math.ceil(0.95 * len(delays)) - 1)] if delays else "none"
    mean = {
        name: statistics.mean(row[name] for row in rows) for name in ("found", "missed", "false")
    }
    return f"""## Many keys, five of them drifting

The same keys and values, but that the refusals of {rows[0]["drifting"]} keys go from 2 to 10 % at
response 3,500; seeds {", ".join(found)}. Per run {mean["found"]:.2f} found,
{mean["missed"]:.2f} missed, {mean["false"]:.2f} false. Delay after multiplicity over 2,000 signals
and hysteresis of two ticks (20 responses): {middle} responses (median), {late} (95th percentile).
"""


def _table(found: Mapping[str, Any]) -> str:
    sections = [_standing_table(found)]
    for name, rows in found.items():
        if rows:
            sections.append(_scenario(name, rows))
    return "\n".join(sections)


def _standing_table(found: Mapping[str, Any]) -> str:
    river = {(each.scenario, each.change): each for each in standings(found, "River")}
    rows = []
    for each in standings(found):
        row = [change_of(each), f"{each.bank:,.0f}", f"{each.bank_arl:,.0f}"]
        for other in (each, river.get((each.scenario, each.change))):
            row += _other(other) if other else ["", ""]
        rows.append([*row, ", ".join(each.behind)])
    header = (
        "change", "bank", "its ARL0", "best single", "ratio", "best of River's", "ratio",
        "surely behind",
    )  # fmt: skip
    return f"""## The bank against the best single detector

Median delays at matched ARL0; beside each single detector its delay and its ARL0. One counts where
its measured ARL0 is at least {LEAST_ARL} of the bank's and it misses at most one change in twenty.
The best is chosen after the fact, change by change, of up to sixteen: luck is on its side. Beside a
ratio its 95 % interval, of the same runs, by bootstrap; it does not know of that choice, nor that
thresholds are matched by estimates. Where a name stands in the last column, the whole interval
against that detector lies above {BEHIND}. The bank has one of our detectors for a signal, so that a
ratio of 1.00 is that one without the channel around it.

{table(header, rows)}
"""


def _other(each: Standing) -> list[str]:
    told = f"{each.best}: {each.best_delay:,.0f} at {_whole_arl(each.best_arl)}"
    interval = f" ({each.interval[0]:.2f} to {each.interval[1]:.2f})" if each.interval else ""
    return [told, f"{each.ratio:.2f}{interval}"]


def _whole_arl(value: float) -> str:
    return f"{value:,.0f}" if math.isfinite(value) else "no alarm"


def _scenario(name: str, rows: Mapping[str, Any]) -> str:
    scenario = ALL[name]
    header = (
        "detector", "of", "ARL0 (95 %)", "streams",
        *(f"{c}: delay" for c in scenario.changes.values()),
    )  # fmt: skip
    # In one order, whenever each was measured.
    lines = [_line(who, rows[who], scenario.changes) for who in sorted(rows, key=_rank)]
    size = scenario.sizes
    return f"""## {scenario.title[0].upper()}{scenario.title[1:]}

{size.length:,} values of quiet streams to find an alarm in; as many streams as stand beside it.
Delay: median, 95th percentile; missed of runs, where any were.

{table(header, lines)}
"""


def _rank(who: str) -> int:
    return ORDER.index(who) if who in ORDER else len(ORDER)


def _line(who: str, row: Mapping[str, Any], changes: Mapping[str, str]) -> list[str]:
    if row["setting"] is None:
        return [who, row["family"], "no setting reaches it", "", *("" for _ in changes)]
    cells = [_delay(row["changes"][change]) for change in changes]
    return [who, row["family"], arl_of(row), str(row["streams"]), *cells]


def _delay(found: Mapping[str, Any]) -> str:
    missed = f", {found['missed']} of {found['runs']}" if found["missed"] else ""
    return f"{whole(found['median'])}, {whole(found['p95'])}{missed}"


def _rivals(found: Mapping[str, Any]) -> str:
    sections = []
    for name in dict.fromkeys(key.split("/")[1] for key in found):
        scenario = ALL[name]
        rows = [
            [*_line(who, row, scenario.changes), f"{row['us']:.0f}", row["version"]]
            for key, several in found.items()
            if key.endswith(f"/{name}")
            for who, row in several.items()
        ]
        header = (
            "detector", "of", "ARL0 (95 %)", "streams",
            *(f"{c}: delay" for c in scenario.changes.values()),
            "µs", "version",
        )  # fmt: skip
        sections.append(
            f"### {scenario.title[0].upper()}{scenario.title[1:]}\n\n{table(header, rows)}\n"
        )
    return "## Rivals, in environments of their own\n\n" + "\n".join(sections)


def _costs(found: Mapping[str, Any]) -> str:
    names = list(dict.fromkeys(name for rows in found.values() for name in rows))
    rows = []
    for name in names:
        cells = [(found.get(kind) or {}).get(name) for kind in ("refusals", "gauss")]
        family = next(cell["family"] for cell in cells if cell)
        rows.append(
            (name, family, *(f"{cell['us']:.1f}" if cell else "" for cell in cells),
             *(f"{cell['bytes']:,}" if cell and cell["bytes"] else "" for cell in cells))
        )  # fmt: skip
    header = ("detector", "of", "µs, rate", "µs, number", "bytes, rate", "bytes, number")
    return f"""## What an update costs

CPU microseconds per value, the least of three passes; state after 20,000 values, of ours as JSON,
of River's as a pickle (of our e-detectors alone it is part of the bank's, above).

{table(header, rows)}
"""


def _annotated(found: Mapping[str, Any]) -> str:
    rows = [
        (name, row["family"], f"{row['found']} of {row['marked']}", str(row["false"]))
        for name, row in found["contestants"].items()
    ]
    series = ", ".join(
        f"{name} ({row['values']:,}: {len(row['marked'])})" for name, row in found["series"].items()
    )
    return f"""## River's annotated series

{series}: values, and changes that at least half of the annotators marked. Settings of the
independent Gaussian stream; learning from 40 values, at the beginning and after an alarm; found
within 60. These series have trends, so that alarms come without marks too; the fixed period and
NoDrift show what a count is worth.

{table(("detector", "of", "changes found", "other alarms"), rows)}
"""
