"""Errors of inference that do not cross its border."""

from __future__ import annotations

__all__ = ["AdapterUnusable", "EngineLost", "EngineUnusable"]


class EngineLost(Exception):
    """The engine that held the work went away: the work may be run again elsewhere."""


class EngineUnusable(Exception):
    """The model cannot be served with these settings; the message says what to change."""


class AdapterUnusable(Exception):
    """An adapter cannot be served here; the message says what to change. The engine goes on."""
