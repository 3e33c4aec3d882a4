"""Kafka plumbing: ports, aiokafka behind them, and a broker in memory for unit tests."""
