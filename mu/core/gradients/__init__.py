"""Gradients: summed over batches, per sample, per layer."""
