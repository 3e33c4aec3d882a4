"""What retrain adds to the `penstock` command."""
