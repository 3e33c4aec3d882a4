"""Every state of a job that does something has a stage in the real service."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from penstock_retrain.composition import Parts, compose_stages
from penstock_retrain.jobs.states import STAGES
from penstock_retrain.settings import RetrainSettings


def test_nothing_is_left_out(tmp_path: Path) -> None:
    settings = RetrainSettings.model_validate(
        {"work_dir": tmp_path, "collected_url": str(tmp_path)}
    )
    nobody: Any = None  # putting stages together asks nobody anything
    stages = compose_stages(Parts(settings, nobody, nobody, nobody, nobody, nobody))
    assert set(stages) == set(STAGES)
