"""Gradients outside the training step: summed over batches, and per sample."""
