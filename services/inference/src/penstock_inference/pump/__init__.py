"""From `admitted` to one answer in one transaction."""
