"""The reference workload: a small model that turns a support ticket into JSON, and its data."""
