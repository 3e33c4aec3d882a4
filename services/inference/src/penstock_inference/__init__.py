"""Admitted requests to responses: a pump on Kafka and an engine on vLLM, both on Ray Serve."""
