"""What may come in, and what it becomes: validated, counted, named, with a variant."""
