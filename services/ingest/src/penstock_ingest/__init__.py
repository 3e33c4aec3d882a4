"""The front doors of penstock: Kafka, gRPC and OpenAI HTTP, one admission for all of them."""
