"""What was to be reached, and whether it was. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from typing import Any

from report import table

from bench.drift.contestants import BANK
from bench.drift.standing import BEHIND, standings
from bench.drift.telling import arl_of, change_of, per_run

__all__ = ["ALPHA", "BASELINE", "SEEDS", "targets"]

# Of the default policy.
ALPHA = 1e-4
BASELINE = 2000
# Runs of many keys.
SEEDS = 20

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
            f"{change['median']} at {arl_of(found)}; {change['missed']} of {change['runs']} missed",
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
    for family, words in (("", "the best single detector"), ("River", "the best of River's")):
        found = standings(_figures(parts, "table"), family)
        if not found:
            continue
        behind = [each for each in found if each.ratio > BEHIND]
        surely = [each for each in found if each.behind]
        first = [each for each in found if each.ratio <= 1]
        worst = max(found, key=lambda each: each.ratio)
        yield (
            f"never more than 10 % behind {words} in delay at matched ARL0, ahead on most",
            f"of {len(found)} changes ahead or the best itself on {len(first)}, more than 10 % "
            f"behind on {len(behind)}, beyond chance (95 %) on {len(surely)}; at worst "
            f"{worst.ratio:.2f} times ({change_of(worst)}, {worst.best})",
            _yes(not behind and 2 * len(first) > len(found)),
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


def _claim_worker(parts: Mapping[str, Any]) -> Iterator[Row]:
    found = _figures(parts, "worker")
    if found:
        yield (
            "1,000 responses/s per worker through faust from the real topic",
            "; ".join(f"{row['per_s']:,} with {name}" for name, row in found.items()),
            _yes(found["ten signals"]["per_s"] >= 1000),
        )


def _claim_null(parts: Mapping[str, Any]) -> Iterator[Row]:
    rows = [row["null"] for row in _figures(parts, "fleet").values()]
    if rows:
        opened = sum(row["incidents"] for row in rows)
        promised = ALPHA * (rows[0]["responses"] - BASELINE)
        yield (
            "quiet traffic: incidents within what alpha promises",
            f"{opened} over {len(rows)} seeds ({per_run(opened, len(rows))} per run); "
            f"promise {promised:.1f}",
            _yes(opened / len(rows) <= promised, len(rows)),
        )


def _claim_drifting(parts: Mapping[str, Any]) -> Iterator[Row]:
    rows = [row["drifting"] for row in _figures(parts, "fleet").values()]
    if rows:
        found = statistics.mean(row["found"] for row in rows)
        false = statistics.mean(row["false"] for row in rows)
        yield (
            "5 of 200 keys drift: at least 4.8 of 5 found on average, at most 0.3 false per run",
            f"{found:.2f} found, {false:.2f} false, over {len(rows)} seeds",
            _yes(found >= 4.8 and false <= 0.3, len(rows)),
        )


CLAIMS = (
    _claim_refusals, _claim_season, _claim_behind, _claim_throughput, _claim_worker, _claim_null,
    _claim_drifting,
)  # fmt: skip


def targets(parts: Mapping[str, Any]) -> str:
    """The section."""
    rows = [row for claim in CLAIMS for row in claim(parts)]
    return f"## What was to be reached\n\n{table(('target', 'measured', 'reached'), rows)}\n"


def _yes(reached: bool, seeds: int = SEEDS) -> str:
    if seeds < SEEDS:
        return f"{'so far' if reached else 'not so far'}; {SEEDS} seeds were asked for"
    return "yes" if reached else "no"
