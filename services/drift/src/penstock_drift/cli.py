"""`penstock drift`: the group that the kit finds by its entry point; commands are in files."""

from __future__ import annotations

import typer

from penstock_drift.calibration.command import calibrate
from penstock_drift.policy.commands import app as policy
from penstock_drift.replay.command import replay
from penstock_drift.report.command import report
from penstock_drift.signals.command import signals

__all__ = ["app"]

app = typer.Typer(
    no_args_is_help=True, help="Say what drift looks for, and look into what it found."
)
app.add_typer(policy, name="policy")
app.command(epilog="Example:  penstock drift signals --model triage --signal refusal")(signals)
app.command(epilog="Example:  penstock drift report 3f9c --out incident.html")(report)
app.command(epilog="Example:  penstock drift replay --from 2026-01-02 --to 2026-01-03 --compare")(
    replay
)
app.command(
    epilog="Example:  penstock drift calibrate --signal latency --from-topic --model triage "
    "--variant triage-base"
)(calibrate)
