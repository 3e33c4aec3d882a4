"""What may go wrong with gates, each with what to do next."""

from __future__ import annotations

__all__ = ["AnswersError", "GateError", "SuiteError"]


class GateError(Exception):
    """A suite cannot be run; the message names the remedy."""


class SuiteError(GateError):
    """A suite or its examples say what they must not; a line per error: file, line, field."""


class AnswersError(GateError):
    """A model gave no answers; the message has what its process said last."""
