"""Materialises `usage` into an exact ledger and answers what was spent."""
