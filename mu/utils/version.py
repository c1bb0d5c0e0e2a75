"""Version of mu."""

__version__ = "0.1.0"
