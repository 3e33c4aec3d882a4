"""From `responses` and `feedback` to `signals`, each record exactly once."""
