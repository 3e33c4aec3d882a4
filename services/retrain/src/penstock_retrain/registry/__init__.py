"""Versions of models: what there is, who is champion, where it came from."""
