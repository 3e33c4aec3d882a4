"""What was found, found again from `signals`: `penstock drift replay`."""
