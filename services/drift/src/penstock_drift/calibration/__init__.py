"""Dials of the calibrated channel from quiet traffic: `penstock drift calibrate`."""
