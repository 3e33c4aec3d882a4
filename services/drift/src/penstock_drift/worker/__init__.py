"""Folds and the judge at work on the log: records in, findings and kept state out."""
