"""docs/signals.md lists every signal as it is declared."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock_drift.signals.catalogue import CATALOGUE
from penstock_drift.signals.declared import Declaration, Transform

PAGE = (Path(__file__).parents[4] / "docs" / "signals.md").read_text()
WORSE = {None: "", True: "higher", False: "lower"}


@pytest.mark.parametrize("signal", CATALOGUE.values(), ids=list(CATALOGUE))
def test_the_page_has_its_row(signal: Declaration) -> None:
    unit = signal.unit + (", log" if signal.transform is Transform.LOG else "")
    cells = (
        f"`{signal.name}`",
        signal.type.value,
        signal.kind.value,
        signal.origin.value,
        unit,
        WORSE[signal.higher_is_worse],
        signal.meaning,
    )
    assert f"| {' | '.join(cells)} |" in PAGE
