"""The closed loop from a drift event to a better model: not in this version (docs/architecture)."""
