"""Image generation for tests, judges and features."""
