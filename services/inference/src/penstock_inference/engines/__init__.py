"""Engines behind one protocol: vLLM, hosted models, and a scripted one. They know no topic."""
