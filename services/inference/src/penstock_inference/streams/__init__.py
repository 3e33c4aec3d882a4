"""The gRPC streams between pumps and engines, and both of their ends."""
