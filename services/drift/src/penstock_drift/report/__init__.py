"""An incident as one page: `penstock drift report`."""
