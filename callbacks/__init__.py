"""Suites and other Lightning callbacks.

The names of `__init__.pyi` are imported on first use.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

default_callbacks = ["callbacks.ResultsWriter", "callbacks.Curves"]
"""Added to every run by the command line and by studies."""
