"""The wire: Kafka, gRPC and OpenAI HTTP."""
