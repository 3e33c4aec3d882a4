"""Why a training ends without weights."""

from __future__ import annotations

__all__ = ["TrainingFailed", "TrainingImpossible"]


class TrainingImpossible(Exception):
    """It cannot succeed however often it is tried; the message names the field and the remedy."""


class TrainingFailed(Exception):
    """Its process ended without a result; tried again, it goes on from its last checkpoint."""
