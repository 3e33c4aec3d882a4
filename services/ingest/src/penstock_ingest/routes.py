"""The table of routes: the kit's."""

from __future__ import annotations

from penstock.routing import RouteTable

__all__ = ["RouteTable"]
