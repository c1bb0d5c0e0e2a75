"""Components (methods, tasks, callbacks) built from plain configuration with checked types."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from copy import deepcopy
from functools import cached_property
from typing import Any

from mu.config.merge import merge
from mu.utils.errors import InputError

__all__ = ["Components", "merge"]


class Components:
    """Parsers for methods, tasks and callbacks, built once and used for every run of a study."""

    @cached_property
    def _types(self) -> dict[str, Any]:
        from lightning.pytorch import Callback

        from mu.core.module import UnlearningModule
        from mu.data.datamodule import UnlearningDataModule

        return {
            "model": UnlearningModule,
            "data": UnlearningDataModule,
            "callbacks": list[Callback],
        }

    @cached_property
    def _parsers(self) -> dict[str, Any]:
        from jsonargparse import ArgumentParser

        parsers = {}
        for section, hint in self._types.items():
            parser = ArgumentParser(exit_on_error=False)
            parser.add_argument(f"--{section}", type=hint)
            parsers[section] = parser
        return parsers

    def check(self, section: str, spec: Any) -> None:
        """Check a specification as `resolve` does, without the time of filling in defaults."""
        self._parse(section, spec)

    def resolve(self, section: str, spec: Any) -> Any:
        """Plain data of a checked specification with every default filled in.

        Two ways of writing the same specification give the same data.

        Args:
            section: `model`, `data` or `callbacks`.
            spec: `{class_path: ..., init_args: {...}}`, or a list of those.
        """
        import json

        parser = self._parsers[section]
        parsed = self._parse(section, spec)
        # what has just been parsed is valid, and JSON is read in a third of the time of YAML
        text = parser.dump(parsed, format="json", skip_none=False, skip_validation=True)
        return json.loads(text)[section]

    def make(self, section: str, spec: Any) -> Any:
        """Object that a specification describes."""
        parser = self._parsers[section]
        parsed = self._parse(section, spec)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            instantiate = getattr(parser, "instantiate", None) or parser.instantiate_classes
            return instantiate(parsed)[section]

    def _parse(self, section: str, spec: Any) -> Any:
        from argparse import ArgumentError

        from jsonargparse import ArgumentError as ParserError

        from mu.config.argument_types import Argument
        from mu.config.class_faults import check_components
        from mu.config.spec_faults import value_fault

        argument = Argument(section, self._types[section])
        path = spec.get("class_path", section) if isinstance(spec, Mapping) else section
        try:
            check_components(spec, argument)
        except InputError as error:
            raise InputError(f"{path} cannot be built: {error}") from error
        try:
            # the parser puts objects into the lists of its input
            return self._parsers[section].parse_object({section: deepcopy(spec)})
        except (ArgumentError, ParserError, TypeError, ValueError) as error:
            fault = value_fault(spec, argument)
            reason = fault or " ".join(str(error).split())
            raise InputError(f"{path} cannot be built: {reason}") from error
