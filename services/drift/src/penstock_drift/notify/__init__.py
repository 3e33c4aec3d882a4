"""Alertmanager: which alerts it is told of, in which words, and how often."""
