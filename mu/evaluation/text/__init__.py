"""Metric graph of language models: token scores, metrics, probes, oracle logs."""
