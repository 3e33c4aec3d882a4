"""What drift's parts pass to each other on `signals` and `evidence`, and its records."""
