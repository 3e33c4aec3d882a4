"""What the gRPC door shows: incidents, and where signals stand."""
