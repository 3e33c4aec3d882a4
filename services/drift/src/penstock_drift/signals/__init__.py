"""What is measured, and for which keys. Pure but for `command`; `catalogue` lists all of it."""
