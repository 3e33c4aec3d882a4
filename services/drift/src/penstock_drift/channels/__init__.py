"""One signal of one key: normalised, given to its detectors, told to the fold. Pure."""
