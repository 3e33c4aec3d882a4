"""What Ray Serve runs: engines and pumps as deployments."""
