"""Scores of texts and the graph of metrics on them."""
