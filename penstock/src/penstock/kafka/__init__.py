"""Kafka plumbing: ports the services own, aiokafka behind them, and a broker in memory for tests."""
