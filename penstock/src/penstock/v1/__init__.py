"""Generated from protos/penstock/v1 by `make protos`; not edited by hand."""
