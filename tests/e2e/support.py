"""What the end-to-end tests share: a ticket, and where things are."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
TICKET = "Hello, I was charged twice for my subscription this month. Please look into it."
