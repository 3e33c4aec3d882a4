"""Watches the response stream for change."""
