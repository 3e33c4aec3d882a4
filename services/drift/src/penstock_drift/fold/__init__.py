"""One partition of `signals`, folded into evidence tick by tick. Pure."""
