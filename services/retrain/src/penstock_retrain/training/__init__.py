"""The stage `training`: a dataset becomes an adapter or full weights, under Ray."""
