"""Gates: what a candidate has to show, on examples, before it may have traffic."""
