"""gRPC plumbing: a server with health, reflection and mapped errors, a channel, error details."""
