"""The kit that penstock's services share: contracts, topics, Kafka and gRPC plumbing, telemetry."""
