"""Suites on language models."""
