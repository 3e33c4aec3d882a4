"""Made-up changes that have to be found, all the time."""
