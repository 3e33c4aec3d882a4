"""DRIFT.md from the figures: what was to be reached, what was measured, on what. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping
from typing import Any

from report import table

from bench.drift.comparison import ALL, TARGET
from bench.drift.contestants import BANK
from bench.drift.standing import Standing, standings

__all__ = ["page"]

ALPHA = 1e-4
BASELINE = 2000
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
        "refusals": _refusals, "throughput": _throughput, "season": _season, "fleet": _fleet,
        "table": _table, "rivals": _rivals, "costs": _costs,
        "annotated": _annotated,
    }  # fmt: skip
    found = [HEAD, _targets(parts)]
    for name, write in writers.items():
        part = parts.get(name)
        if part and part["figures"]:
            found.append(f"{write(part['figures'])}\n{_on(part['circumstances'])}\n")
    return "\n".join(found)


def _on(on: Mapping[str, Any]) -> str:
    machine = on["machine"]
    packages = ", ".join(f"{name} {version}" for name, version in on["versions"].items())
    return (
        f"{machine['cpu']}, {machine['cores']} cores; load average at the start "
        f"{on['load_average'][0]:.0f}; {on['at']}; Python {machine['python']}, {packages}."
    )


def _targets(parts: Mapping[str, Any]) -> str:
    rows = [row for claim in CLAIMS for row in claim(parts)]
    return f"## What was to be reached\n\n{table(('target', 'measured', 'reached'), rows)}\n"


Row = tuple[str, str, str]


def _figures(parts: Mapping[str, Any], name: str) -> Any:
    return parts.get(name, {}).get("figures") or {}


def _claim_refusals(parts: Mapping[str, Any]) -> Iterator[Row]:
    found = _figures(parts, "refusals")
    if found:
        change = found["changes"]["0.10"]
        yield (
            "refusals 2 to 10 %: at most 75 requests (median) at an ARL0 of 10,000 or more, no "
            "miss in 200 runs",
            f"{change['median']} at {_arl(found)}; {change['missed']} of {change['runs']} missed",
            _yes(change["median"] <= 75 and found["arl"] >= 10_000 and not change["missed"]),
        )


def _claim_season(parts: Mapping[str, Any]) -> Iterator[Row]:
    found = _figures(parts, "season")
    if found:
        bank, adwin = found[BANK], found["ADWIN"]
        ours = bank["first_alarms"] / bank["values"]
        theirs = adwin["all_alarms"] / adwin["all_values"]
        yield (
            "seasonal false alarms: at most a tenth of plain ADWIN's",
            f"{1e4 * ours:.2f} against {1e4 * theirs:.2f} per 10,000 values",
            _yes(ours <= theirs / 10),
        )


def _claim_behind(parts: Mapping[str, Any]) -> Iterator[Row]:
    found = standings(_figures(parts, "table"))
    if found:
        behind = [each for each in found if each.ratio > 1.1]
        ahead = [each for each in found if each.ratio < 1]
        worst = max(found, key=lambda each: each.ratio)
        yield (
            "never more than 10 % behind the best single detector in delay at matched ARL0, ahead "
            "on most",
            f"of {len(found)} changes ahead on {len(ahead)}, more than 10 % behind on "
            f"{len(behind)}; at worst {worst.ratio:.2f} times ({_change(worst)}, {worst.best})",
            _yes(not behind and 2 * len(ahead) > len(found)),
        )


def _claim_throughput(parts: Mapping[str, Any]) -> Iterator[Row]:
    found = _figures(parts, "throughput")
    if found:
        yield (
            "1,000 keys with 10 signals: 5,000 responses/s through the bank on one core",
            f"{found['channels_per_s']:,} through the channels, {found.get('fold_per_s', 0):,} "
            "through the fold, per second of CPU",
            _yes(found["channels_per_s"] >= 5000),
        )
        yield (
            "under 2 kB of state per key and signal",
            f"{found['state_bytes_mean']:,} bytes on average, {found['state_bytes_most']:,} at "
            "most",
            _yes(found["state_bytes_most"] < 2000),
        )


def _claim_null(parts: Mapping[str, Any]) -> Iterator[Row]:
    rows = [row["null"] for row in _figures(parts, "fleet").values()]
    if rows:
        opened = sum(row["incidents"] for row in rows)
        promised = ALPHA * (rows[0]["responses"] - BASELINE)
        yield (
            "quiet traffic: incidents within what alpha promises",
            f"{opened} in {len(rows)} runs ({_poisson(opened, len(rows))} per run); promise "
            f"{promised:.1f}",
            _yes(opened / len(rows) <= promised),
        )


def _claim_drifting(parts: Mapping[str, Any]) -> Iterator[Row]:
    rows = [row["drifting"] for row in _figures(parts, "fleet").values()]
    if rows:
        found = statistics.mean(row["found"] for row in rows)
        false = statistics.mean(row["false"] for row in rows)
        yield (
            "5 of 200 keys drift: at least 4.8 of 5 found on average, at most 0.3 false per run",
            f"{found:.2f} found, {false:.2f} false, in {len(rows)} runs",
            _yes(found >= 4.8 and false <= 0.3),
        )


CLAIMS = (
    _claim_refusals, _claim_season, _claim_behind, _claim_throughput, _claim_null, _claim_drifting,
)  # fmt: skip


def _refusals(found: Mapping[str, Any]) -> str:
    change = found["changes"]["0.10"]
    return f"""## Refusals from 2 to 10 %

The bank's channel at evidence of {found["threshold"]:,}, which was chosen beforehand.
{found["streams"]} quiet streams of {found["length"]:,} values: {found["alarms"]} first alarms, one
in {_arl(found)}. {change["runs"]} runs with a change ({change["early"]} more alarmed before it):
delay {change["median"]} values (median), {change["p95"]} (95th percentile), {change["missed"]}
missed.
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
    per_run = _poisson(opened, len(rows))
    return f"""## Many keys, quiet

{first["keys"]} keys with {first["signals"]} signals, {first["responses"]:,} responses each, of
which {BASELINE:,} are the baseline; through the fold and the judge with the default policy;
{len(rows)} runs (seeds {", ".join(found)}). Incidents opened: {opened}, {per_run} per run (95 %);
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
response 3,500; {len(rows)} runs (seeds {", ".join(found)}). Per run {mean["found"]:.2f} found,
{mean["missed"]:.2f} missed, {mean["false"]:.2f} false. Delay after multiplicity over 2,000 signals
and hysteresis of two ticks (20 responses): {middle} responses (median), {late} (95th percentile).
"""


def _table(found: Mapping[str, Any]) -> str:
    sections = [_standing_table(found)]
    for name, rows in found.items():
        if rows:
            sections.append(_scenario(name, rows))
    return "\n".join(sections)


def _change(each: Standing) -> str:
    scenario = ALL[each.scenario]
    return f"{scenario.title}: {scenario.changes[each.change]}"


def _standing_table(found: Mapping[str, Any]) -> str:
    rows = [
        (_change(each), f"{each.bank:,.0f}", f"{each.best_delay:,.0f}", each.best,
         f"{each.ratio:.2f}")
        for each in standings(found)
    ]  # fmt: skip
    header = ("change", "bank", "best single detector", "which", "bank / best")
    return f"""## The bank against the best single detector

Median delays at matched ARL0. A single detector counts where its measured ARL0 is at least 0.8 of
the bank's and it misses at most one change in twenty; the best is chosen after the fact, change by
change, of up to sixteen.

{table(header, rows)}
"""


def _scenario(name: str, rows: Mapping[str, Any]) -> str:
    scenario = ALL[name]
    header = ("detector", "of", "ARL0 (95 %)", *(f"{c}: delay" for c in scenario.changes.values()))
    lines = [_line(who, row, scenario.changes) for who, row in rows.items()]
    size = scenario.sizes
    return f"""## {scenario.title.capitalize()}

{size.streams} quiet streams of {size.length:,} values, {size.runs} runs per change (a share of
them for slow detectors). Delay: median, 95th percentile, missed of runs.

{table(header, lines)}
"""


def _line(who: str, row: Mapping[str, Any], changes: Mapping[str, str]) -> list[str]:
    if row["setting"] is None:
        return [who, row["family"], "no setting reaches it", *("" for _ in changes)]
    cells = []
    for change in changes:
        found = row["changes"][change]
        missed = f", {found['missed']} of {found['runs']}" if found["missed"] else ""
        cells.append(f"{_whole(found['median'])}, {_whole(found['p95'])}{missed}")
    return [who, row["family"], _arl(row), *cells]


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
            "detector", "of", "ARL0 (95 %)", *(f"{c}: delay" for c in scenario.changes.values()),
            "µs", "version",
        )  # fmt: skip
        sections.append(f"### {scenario.title.capitalize()}\n\n{table(header, rows)}\n")
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


def _arl(row: Mapping[str, Any]) -> str:
    if row["arl"] is None:
        return f"more than {_whole(row['arl_low'])}"
    return f"{_whole(row['arl'])} ({_whole(row['arl_low'])} to {_whole(row['arl_high'])})"


def _whole(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _yes(reached: bool) -> str:
    return "yes" if reached else "no"


def _poisson(events: int, runs: int) -> str:
    """A mean per run's exact interval (Garwood, Biometrika 28, 1936)."""
    from scipy.stats import chi2  # type: ignore[import-untyped]  # it has no types

    low = chi2.ppf(0.025, 2 * events) / 2 if events else 0.0
    high = chi2.ppf(0.975, 2 * events + 2) / 2
    return f"{low / runs:.2f} to {high / runs:.2f}"
