"""Building components (methods, tasks, callbacks) from plain configuration, with jsonargparse's
type checks.
"""

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
    """Parsers for the three kinds of components, built once and used for every run of a study."""

    @cached_property
    def _parsers(self) -> dict[str, Any]:
        from jsonargparse import ArgumentParser
        from lightning.pytorch import Callback

        from mu.core.module import UnlearningModule
        from mu.data.datamodule import UnlearningDataModule

        kinds = {
            "model": UnlearningModule,
            "data": UnlearningDataModule,
            "callbacks": list[Callback],
        }
        parsers = {}
        for name, kind in kinds.items():
            parser = ArgumentParser(exit_on_error=False)
            parser.add_argument(f"--{name}", type=kind)
            parsers[name] = parser
        return parsers

    def resolve(self, kind: str, spec: Any) -> Any:
        """Check a specification and fill in every default: plain data, the same for every way of
        writing it.

        Args:
            kind: `model`, `data` or `callbacks`.
            spec: `{class_path: ..., init_args: {...}}`, or a list of those.
        """
        import yaml

        parser = self._parsers[kind]
        return yaml.safe_load(parser.dump(self._parse(kind, spec), skip_none=False))[kind]

    def make(self, kind: str, spec: Any) -> Any:
        """The object that a specification describes."""
        parsed = self._parse(kind, spec)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            instantiate = (
                getattr(self._parsers[kind], "instantiate", None)
                or self._parsers[kind].instantiate_classes
            )
            return instantiate(parsed)[kind]

    def _parse(self, kind: str, spec: Any) -> Any:
        from argparse import ArgumentError

        from jsonargparse import ArgumentError as ParserError

        try:
            # it puts objects into the lists that it is given
            return self._parsers[kind].parse_object({kind: deepcopy(spec)})
        except (ArgumentError, ParserError, TypeError, ValueError) as error:
            where = spec.get("class_path", kind) if isinstance(spec, Mapping) else kind
            raise InputError(f"{where} cannot be built: {' '.join(str(error).split())}") from error
