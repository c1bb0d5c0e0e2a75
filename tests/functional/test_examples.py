"""Worked examples in the docstrings of `mu.functional` and `mu.metrics`."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil

import pytest

import mu.functional
import mu.metrics

# the formats of files, tested in tests/metrics
WITHOUT_EXAMPLES = {"mu.metrics.run_outputs", "mu.metrics.run_results"}

MODULES = [
    f"{wing.__name__}.{module.name}"
    for wing in (mu.functional, mu.metrics)
    for module in pkgutil.iter_modules(wing.__path__)
]


@pytest.mark.parametrize("name", MODULES)
def test_every_public_function_has_an_example_that_holds(name):
    """Fails when a public function has no worked example, or when one gives another value."""
    module = importlib.import_module(name)
    functions = [
        function
        for function in vars(module).values()
        if inspect.isfunction(function)
        and function.__module__ == name
        and not function.__name__.startswith("_")
    ]
    if name not in WITHOUT_EXAMPLES:
        missing = [f.__name__ for f in functions if ">>> " not in (f.__doc__ or "")]
        assert not missing, f"no worked example in {missing}"
    assert doctest.testmod(module).failed == 0
