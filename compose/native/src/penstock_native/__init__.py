"""The penstock stack as plain processes on loopback, Kafka included, from Python packages alone."""
