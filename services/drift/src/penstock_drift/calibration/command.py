"""`penstock drift calibrate`: dials of the calibrated channel from quiet traffic."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Column, Table

from penstock.cli.log import read_all, require_topic
from penstock.cli.run import CliError, err, read_text, run
from penstock.cli.settings import CliSettings
from penstock.jsonlines import split_lines
from penstock.records import Record

if TYPE_CHECKING:
    from penstock_drift.calibration.bootstrap import Calibration
    from penstock_drift.policy.document import Policy
    from penstock_drift.records.values import Value

__all__ = ["calibrate"]

# Of a file without times: far enough apart for no season, near enough for one block of the log.
STEP_MS = 1000
# KSWIN costs a hundred times the others, and has to be asked for.
USUAL = "adwin,adwin_spread,page_hinkley,seed,stepd"

Values = list[tuple["Value", int]]


def calibrate(
    signal: Annotated[
        str, typer.Option(help="Which signal: `penstock drift signals --catalogue`.")
    ],
    target_arl: Annotated[
        float, typer.Option(min=100, help="Mean values between two false alarms of a detector.")
    ] = 100_000,
    from_file: Annotated[
        str | None,
        typer.Option(
            help="Quiet values: a number per line, or JSON lines with `value` and, for a season, "
            "`time_ms`; - for stdin."
        ),
    ] = None,
    from_topic: Annotated[
        bool, typer.Option("--from-topic", help="Quiet values: what `signals` holds of one key.")
    ] = False,
    model: Annotated[str, typer.Option(help="Of the topic: whose values.")] = "",
    variant: Annotated[str, typer.Option(help="Of the topic: whose values.")] = "",
    segment: Annotated[str, typer.Option(help="Of the topic: LABEL=VALUE; empty for all.")] = "",
    detectors: Annotated[
        str, typer.Option(help="Names, with commas: those of the policy's `detectors`.")
    ] = USUAL,
    policy: Annotated[
        str | None, typer.Option(help="A policy's file; the default policy otherwise.")
    ] = None,
    block_length: Annotated[
        int, typer.Option(min=1, help="Neighbours that are drawn together: longer than what binds.")
    ] = 50,
    seed: Annotated[int, typer.Option(help="Of the draws; the same gives the same.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Find thresholds at which detectors rarely fire on quiet traffic, and print what to write.

    The traffic has to be quiet: what changed in it counts as usual from then on. The first values
    make the baseline, as the policy has it; the rest is resampled in blocks.
    """

    async def body(settings: CliSettings) -> None:
        if (from_file is None) == (not from_topic):
            raise CliError("say where the quiet values are: either --from-file or --from-topic")
        if from_file is not None:
            values: Values = list(_values(read_text(from_file)))
        else:
            topic = await require_topic(settings, "signals")
            key = (model, variant, segment)
            values = _of_key(await read_all(settings, topic), key, signal)
        found = _calibrated(
            signal, values, target_arl, _names(detectors), policy, block_length, seed
        )
        if as_json:
            for each in found:
                typer.echo(json.dumps(_plain(each)))
        else:
            err.print(_table(found, target_arl))
            typer.echo(_snippet(signal, found), nl=False)
        if all(each.threshold is None for each in found):
            raise CliError("no detector is quiet enough: lower --target-arl, or look at the values")

    run(body)


def _calibrated(
    signal: str,
    values: Values,
    target_arl: float,
    names: Sequence[str],
    policy_file: str | None,
    block_length: int,
    seed: int,
) -> list[Calibration]:
    # Not at the start of every command: scipy and River take a second.
    from penstock_drift.calibration import bootstrap
    from penstock_drift.channels.bank import watch_of
    from penstock_drift.signals.catalogue import CATALOGUE

    declaration = CATALOGUE.get(signal)
    if declaration is None:
        raise CliError(f"no signal {signal!r}; see: penstock drift signals --catalogue")
    watch = watch_of(_policy(policy_file), declaration)
    if watch is None:
        raise CliError(f"the policy does not watch {signal}; enable it there")
    try:
        quiet = bootstrap.quiet_values(declaration, watch, values)
    except bootstrap.NotEnough as error:
        raise CliError(str(error)) from None
    worse = declaration.higher_is_worse
    return [
        bootstrap.calibrate(
            name, quiet, target_arl, higher_is_worse=worse, block=block_length, seed=seed
        )
        for name in names
    ]


def _policy(file: str | None) -> Policy:
    from penstock_drift.policy.document import PolicyError, default_document, parse_policy

    try:
        return parse_policy(default_document() if file is None else read_text(file))
    except PolicyError as error:
        raise CliError(f"{file}: {error}") from None


def _names(text: str) -> list[str]:
    from penstock_drift.detectors.calibrated import DIALS

    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in DIALS]
    if unknown or not names:
        raise CliError(f"no detector {', '.join(unknown)}; there are: {', '.join(DIALS)}")
    return names


def _values(text: str) -> Iterator[tuple[Value, int]]:
    for number, line in enumerate(split_lines(text), start=1):
        if not line.strip():
            continue
        try:
            found: Any = json.loads(line)
            if isinstance(found, dict):
                value, time_ms = found["value"], int(found.get("time_ms", number * STEP_MS))
            else:
                value, time_ms = found, number * STEP_MS
            if isinstance(value, list):
                value = tuple(value)
            elif isinstance(value, bool | int):
                value = float(value)
            if not isinstance(value, float | tuple):
                raise TypeError("no number")
        except (ValueError, KeyError, TypeError) as error:
            raise CliError(
                f"line {number} is neither a number nor JSON with `value`: {error}"
            ) from None
        yield value, time_ms


def _of_key(records: Sequence[Record], key: tuple[str, str, str], signal: str) -> Values:
    from penstock.errors import InvalidRequest
    from penstock_drift.records.signal_wire import from_record
    from penstock_drift.records.values import Observation

    found: list[tuple[int, int, Value]] = []
    keys = set()
    for record in records:
        try:
            item = from_record(record)
        except InvalidRequest:
            continue
        if isinstance(item, Observation) and signal in item.values:
            keys.add("/".join(item.key))
            if item.key == key:
                found.append((item.time_ms, item.source.offset, item.values[signal]))
    if not found:
        there = ", ".join(sorted(keys)[:10]) or "none"
        raise CliError(f"`signals` has no {signal} of {'/'.join(key)}; it has it of: {there}")
    # In order of event time, as the channel sees them.
    found.sort(key=lambda each: each[:2])
    return [(value, time_ms) for time_ms, _, value in found]


def _plain(found: Calibration) -> dict[str, Any]:
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in dataclasses.asdict(found).items()
    }


def _table(found: Sequence[Calibration], target_arl: float) -> Table:
    shown = Table(
        "detector",
        *(Column(name, justify="right") for name in ("threshold", "ARL", "95 %", "alarms")),
        title=f"values between two alarms on resampled quiet data; wanted: {target_arl:,.0f}",
    )
    for each in found:
        threshold = "none is quiet enough" if each.threshold is None else f"{each.threshold:g}"
        arl = f"{each.arl:,.0f}" if each.alarms else f"> {each.observations:,}"
        high = f"{each.arl_high:,.0f}" if each.alarms else "-"
        interval = f"{each.arl_low:,.0f} to {high}"
        shown.add_row(each.detector, threshold, arl, interval, str(each.alarms))
    return shown


def _snippet(signal: str, found: Sequence[Calibration]) -> str:
    good = [each for each in found if each.threshold is not None]
    thresholds = ", ".join(f"{each.detector}: {each.threshold!r}" for each in good)
    return (
        "# Into the policy, under `signals`:\n"
        f'  "{signal}":\n'
        f"    detectors: [{', '.join(each.detector for each in good)}]\n"
        f"    thresholds: {{{thresholds}}}\n"
    )
