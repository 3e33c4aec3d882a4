"""Operational drift, answered without asking anybody: decided, then carried out."""
