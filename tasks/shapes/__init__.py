"""Drawn shapes with captions, and a small text-to-image model."""
